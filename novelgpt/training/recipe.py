"""--hours -> the options that are left open: the book's own vocabulary, a network of the ladder, batch, stride.

    chapters ─fit→ vocabulary ─tokenize→ tokens ┐
    a few steps of a network ────→ FLOP a second ┼─rules→ the network that comes lowest in the hours
    counts of the training text ────→ nats a token ┘

What is given stays as it is given. An unfinished run of hours keeps what was chosen for it, whatever the machine would
choose today. `--plan` prints the choice, what it is expected to reach, and what half and twice the time would change.

A loss is predicted as its distance from what 5-grams with a cache cost on the same held-out text: novels differ by a
nat in that figure, and little in the distance. With C operations in all and U different tokens to learn from::

    best size = SIZE · (C / COMPUTE)^GROWTH parameters
    distance  = DISTANCE - BY_COMPUTE · ln(C / COMPUTE) - BY_TEXT · ln(U / TEXT) + BEND · ln(parameters / best size)²

The constants come from the runs on one novel in docs/LOG.md: SIZE and BEND from three networks of 2 to 9 million
parameters in a quarter of an hour of two processor cores, DISTANCE and BY_COMPUTE from that and an hour, all with
--replacement frequency; the others are first guesses, and so is what lies beyond.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from novelgpt.cli import TrainOptions
from novelgpt.corpus.documents import read_corpus
from novelgpt.corpus.tokenizers import fit_vocabulary
from novelgpt.messages import say, shown
from novelgpt.network import choose_devices, count_config_parameters, read_model_config
from novelgpt.training.keeping import FIRST, FIRST_SHARE
from novelgpt.training.parallel import first_process_alone, join_world, largest_of_processes, wait_for_first
from novelgpt.training.preflight import measure_step
from novelgpt.training.run import RUN_FILE, Run, prepare_run, read_run_file

NAMES = ("1m", "2m", "demo", "9m", "laptop", "27m", "42m", "small")
LADDER = tuple(f"config/model_config_{name}.json" for name in NAMES)  # 1 to 82 million parameters
STEP_TOKENS = 4096  # of a batch at most: Muon turns its matrices once a step, whatever the batch
TAUGHT_STEP = 1.25  # of a plain one's time, where a teacher reads too
LEAST_STEPS, LEAST_ROWS = 1500, 4  # a shorter run takes smaller batches, down to so many windows
USABLE = 0.95  # of the time: the rest is for starting, evaluating and saving

COMPUTE, TEXT, SIZE = 3.4e14, 746_000, 4.3e6  # operations, tokens, parameters of the run that others are set beside
DISTANCE, ERROR = -0.27, 0.15  # nats per token; of a prediction
BY_COMPUTE, BY_TEXT, GROWTH, BEND = 0.118, 0.11, 0.4, 0.085
CHOSEN = ("tokenizer_path", "model_config", "batch_size", "stride")
FIRST_GUESS, TRIAL_ROWS = "config/model_config_demo.json", 16  # measured first: its speed tells that of the others
TRIALS = 2  # networks that are measured at most
# of a vocabulary: a character that occurs once teaches nothing of itself; free tokens; the width that its report names
SIZES = {"vocab_size": None, "min_count": 2, "reserved": 20, "width": 256}


class Plan(NamedTuple):
    """A network, what it would read in the time, and what it would come to."""

    model_config: str
    parameters: int
    batch_size: int  # windows a step
    tokens: float  # read in training
    readings: float  # of the text
    distance: float  # nats per token that the held-out loss will lie above that of 5-grams with a cache


def choose_for_hours(options: TrainOptions, command: Sequence[str] | None = None) -> TrainOptions:
    """Fill in what --hours leaves open; options without hours, and of trained weights or records, stay as they are.

    Raises:
        UserError: what prepare_run raises.
    """
    if options.hours is None or options.pretrained_model or options.reads_rows:
        return options
    if former := recall_choice(options):
        return replace(options, **former)
    options = with_own_vocabulary(options)
    if options.model_config is not None:
        return options

    # the best network of those that the time allows, and what is said of it
    rates, run = measure_networks(options, command)
    plans = rank_networks(run.data.num_tokens, run.tokenizer.vocab_size, seconds_to_learn(options), rates)
    if run.world.is_main:
        show_choice(plans, rates, run, options)
    return replace(options, **open_options(options, plans[0]))


def recall_choice(options: TrainOptions) -> dict[str, object]:
    """Return what was chosen for the run of hours in the run folder, which may hold its first generation alone."""
    paths = (options.output_path / name / RUN_FILE for name in ("", FIRST))
    path = next((path for path in paths if path.exists()), None)
    if path is None or options.resume == "never":
        return {}
    known = read_run_file(path)["options"]
    if known.get("hours") is None:
        return {}
    return {name: known[name] for name in CHOSEN if known.get(name) is not None and getattr(options, name) is None}


def with_own_vocabulary(options: TrainOptions) -> TrainOptions:
    """Fit a vocabulary to the book beside its chapters, where pieces are made and no vocabulary is given."""
    if not options.raw or options.tokenizer_path or options.add_tokens:
        return options
    chapters = Path(options.raw_data_path)
    path = chapters.with_name(f"vocab_{chapters.stem}.txt")
    world = join_world(choose_devices(options.device, takes_several=True)[0])
    if world.is_main:
        with first_process_alone(world, "vocabulary"):
            fit_vocabulary(read_corpus(options.raw_data_path), path, kind="character", **SIZES)
    else:
        wait_for_first(world, "vocabulary")
    return replace(options, tokenizer_path=str(path))


def measure_networks(options: TrainOptions, command: Sequence[str] | None) -> tuple[dict[str, float], Run]:
    """Return the operations a second of the networks that may be best, by a few steps of each, and a run of one."""
    rates: dict[str, float] = {}
    path = FIRST_GUESS
    while path not in rates and len(rates) < TRIALS:
        # the pieces are made once; a compiler would take longer than the steps
        trial = {"model_config": path, "hours": None, "epochs": 1, "second_generation": False, "compile": "off"}
        trial["raw"] = options.raw and not rates
        run = prepare_run(replace(options, **trial, batch_size=options.batch_size or TRIAL_ROWS), command)
        step = largest_of_processes(round(1e6 * measure_step(run)), run.world) / 1e6  # seconds
        vocab_size = run.tokenizer.vocab_size
        rates[path] = flops_per_token(run.config, vocab_size) * run.data.step_tokens / step
        path = rank_networks(run.data.num_tokens, vocab_size, seconds_to_learn(options), rates)[0].model_config
    return rates, run


def open_options(options: TrainOptions, plan: Plan) -> dict[str, object]:
    """Return the options that were left open as the plan has them; windows side by side, moved in every epoch."""
    stride = read_model_config(plan.model_config, loud=False)["n_positions"]
    chosen = {"model_config": plan.model_config, "batch_size": plan.batch_size, "stride": stride}
    return {name: value for name, value in chosen.items() if getattr(options, name) is None}


def show_choice(plans: list[Plan], rates: dict[str, float], run: Run, options: TrainOptions) -> None:
    """Show the network that was chosen and what to expect of it; for a plan also of its neighbours and other hours."""
    best, hours, vocab_size = plans[0], options.hours, run.tokenizer.vocab_size
    lines = [
        f"network:     {best.model_config}, {best.parameters / 1e6:.1f} million parameters",
        f"reads:       {best.tokens / 1e6:,.1f} million tokens in {hours:g} h, the text {best.readings:.1f} times",
    ]
    # a prediction is a distance from counting, which needs held-out text
    counting = run.data.count(vocab_size=vocab_size) if run.data.num_valid > 1 else None
    if counting is None:
        lines.append("expected:    unknown: nothing is held out, or it is too much to count")
    else:
        goal = counting["kn5_cache"]  # nats per token
        loss = f"held-out loss {goal + best.distance:.2f} ± {ERROR:g}"
        lines.append(f"expected:    {loss}; 5-grams with a cache {goal:.2f}")
    if counting and options.plan:
        near = sorted(plans[1:3], key=lambda plan: plan.parameters)
        sizes, seconds = (run.data.num_tokens, vocab_size), seconds_to_learn(options)
        half, twice = (goal + rank_networks(*sizes, factor * seconds, rates)[0].distance for factor in (0.5, 2))
        words = ", ".join(f"{each.model_config} {goal + each.distance:.2f}" for each in near)
        lines += [f"beside it:   {words}", f"other hours: half of them {half:.2f}, twice as many {twice:.2f}"]
    for line in lines:
        print(shown(line)) if options.plan else say(line)


def seconds_to_learn(options: TrainOptions) -> float:
    """Return for how long a plain run would read what the last network reads in the hours.

    >>> seconds_to_learn(TrainOptions(hours=1)), seconds_to_learn(TrainOptions(hours=1, second_generation=True))
    (3600, 1728.0)
    """
    share = (1 - FIRST_SHARE) / TAUGHT_STEP if options.second_generation else 1
    return 3600 * options.hours * share


def flops_per_token(config: Mapping, vocab_size: int) -> float:
    """Return the operations that training takes a token: 6 a weight, and those of attention, forward and backward.

    >>> flops_per_token({"n_layer": 4, "n_embd": 256, "n_positions": 256}, 4078) / 1e6
    26.71104
    """
    depth, width = config["n_layer"], config["n_embd"]
    weights = 12 * depth * width**2 + vocab_size * width
    return 6.0 * weights + 6 * depth * width * config["n_positions"]  # half of the window is seen on the average


def predict_distance(parameters: int, unique: int, flops: float) -> float:
    """Predict how far a held-out loss lies above that of 5-grams with a cache, nats per token; below it is negative.

    >>> predict_distance(int(SIZE), TEXT, COMPUTE)
    -0.27
    """
    work = math.log(flops / COMPUTE)
    off = math.log(parameters / SIZE) - GROWTH * work
    return DISTANCE - BY_COMPUTE * work - BY_TEXT * math.log(unique / TEXT) + BEND * off**2


def count_rows(tokens: float, window: int) -> int:
    """Return how many windows make a step of a run that reads so many tokens.

    >>> count_rows(50e6, 256), count_rows(3e6, 256), count_rows(1e5, 256), count_rows(50e6, 1024)
    (16, 7, 4, 4)
    """
    return max(LEAST_ROWS, int(min(STEP_TOKENS, tokens / LEAST_STEPS)) // window)


def rank_networks(unique: int, vocab_size: int, seconds: float, rates: Mapping[str, float]) -> list[Plan]:
    """Return what the networks of the ladder would come to, the best first.

    Args:
        unique: tokens of the text.
        vocab_size: of its vocabulary.
        seconds: of the whole run.
        rates: operations a second that were measured, by network; the others are taken to be as fast as the first.
    """
    plans = []
    for path in LADDER:
        config = read_model_config(path, loud=False)
        flops = USABLE * seconds * rates.get(path, next(iter(rates.values())))
        parameters, tokens = count_config_parameters(config, vocab_size), flops / flops_per_token(config, vocab_size)
        sizes = parameters, count_rows(tokens, config["n_positions"]), tokens, tokens / unique
        plans.append(Plan(path, *sizes, predict_distance(parameters, unique, flops)))
    return sorted(plans, key=lambda plan: plan.distance)
