"""Before a run starts: what it will do, what it would take here (`train.py --plan`), whether the disk has room.

And what its log will tell of it: the facts of its start, the passage that is scored at each evaluation, and the samples
that a network under training writes. Each of them is a function of data and options, so a resumed run tells the same.
"""

import copy
import functools
import os
import re
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import GPT2LMHeadModel

from novelgpt.cli import spell_command
from novelgpt.corpus.style import CopyIndex, measure_style
from novelgpt.files import read_json, ready_file
from novelgpt.messages import EXIT_ENVIRONMENT, UserError, say, shown, warn
from novelgpt.network import (
    count_config_parameters,
    describe_devices,
    describe_model,
    describe_teachers,
    read_model_config,
)
from novelgpt.training.adapting import plain_model
from novelgpt.training.engine import Engine, Run
from novelgpt.training.keeping import FIRST_SHARE
from novelgpt.training.log import Story, format_duration
from novelgpt.training.pace import LOOKS_SHARE
from novelgpt.training.windows import LOOKED_AT, NOT_SCORED
from novelgpt.writing.generation import generate_text

TRIAL_STEPS = 3  # the first one warms up
CHECKPOINT_BYTES = 12  # a parameter: the weight and two moments in fp32
MODEL_BYTES = 4  # a parameter
FEW_TOKENS_PER_PARAMETER = 0.025  # below, a smaller network learns as well (measured on novels of 1 M characters)
PASSAGE = 300  # characters, of the held-out passage
LONGEST_PREFIX = 60  # characters of a sample's prefix
TRUTH = 200  # characters of what really follows a prefix
# Tokens of an epoch for each one that the samples beside the first are long, by device: a token that is written alone
# takes as long as so many that are trained, so that two such samples stay below one percent of an epoch. Measured for
# a CPU: as long as 9, and 80 for each sample; estimated for the others, which compute many tokens at once.
SHARE_OF_EPOCH = {"cpu": 3_000, "mps": 30_000, "cuda": 150_000}
SHORTEST_SAMPLE = 14  # tokens; where it would be shorter, its beginning alone costs too much
TITLE = re.compile("[《〈]([^》〉\\n]{1,30})[》〉]")
SMALLER = ("config/model_config_laptop.json", "config/model_config_demo.json")


def describe_run(run: Run) -> list[str]:
    """Return the first lines of a run: network, data, steps, device, seed."""
    options = run.options
    train_part, held = run.data.describe_counts()
    rate = f"{options.optimizer} lr {options.lr:g}, weight decay {options.weight_decay:g}, seed {options.seed}"
    processes = f", {run.world.size} processes" if run.world.size > 1 else ""
    is_other = options.shard and run.asked.optimizer == "auto" and not options.pretrained_model
    steps = f"as many as {format_duration(3600 * (options.hours or 0))} allow; epochs of about {run.epoch_steps[0]:,}"
    if run.total_steps is not None:
        steps = f"{run.total_steps:,} = {options.epochs} epochs of about {run.epoch_steps[0]:,}"
    return [
        *(["--shard: AdamW takes the place of Muon, which needs whole matrices"] if is_other else []),
        describe_model(run.config, run.tokenizer.vocab_size),
        *describe_teachers(options.teacher_paths, run.teachers, options.teacher_weight),
        f"data: {train_part}; {held} held out",
        f"steps: {steps}; {run.data.describe_batch()}",
        f"device: {describe_devices(run.devices)}{processes}, {str(run.dtype).removeprefix('torch.')}; {rate}",
    ]


def print_plans(run: Run) -> None:
    """Print the plan of a run, and of a first generation also that of the second one."""
    if not run.options.second_generation:
        return print_plan(run)
    # an engine changes the network that it is given; for time and memory an untrained teacher is as good
    network, teacher = (copy.deepcopy(run.model) for _ in range(2))
    second = replace(run, model=network, teachers=(teacher.eval(),))
    if run.options.hours is not None:  # those of the first are its share of all
        rest = replace(run.options, hours=run.options.hours * (1 - FIRST_SHARE) / FIRST_SHARE)
        second = replace(second, options=rest)
    for title, each in ((shown("first generation"), run), (shown("second generation"), second)):
        if run.world.is_main:
            print(title)
        print_plan(each)
    return None


def print_plan(run: Run) -> None:
    """Print documents, tokens, windows, steps, memory, time, disk and advice, one line each, on stdout.

    Every process measures, the first one prints.
    """
    parameters = run.num_parameters
    ratio = run.data.num_tokens / parameters
    train, held = run.data.describe_counts()

    # the engine of the run itself: what is shown is what will be
    engine = Engine(run)
    seconds = time_step(run, engine)
    hours, total = run.options.hours, run.total_steps
    lines = {
        "data": f"{train}; held out {held}",
        "parameters": f"{parameters:,}; {ratio:.3f} tokens a parameter",
        "batches": run.data.describe_batch(),
        **describe_steps(run, seconds),
        "memory": describe_memory(engine),
        "time": f"{seconds:.2f} s a step, {format_duration(seconds * run.epoch_steps[0])} an epoch, "
        f"{format_duration(seconds * total if hours is None else 3600 * hours)} in all",
        "disk": ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in predict_disk(run).items()),
    }
    if not run.world.is_main:
        return
    for name, words in lines.items():
        print(shown(f"{name + ':':12} {words}"))
    for words in list_advice(run, ratio):
        print(shown(f"{'advice:':12} {words}"))


def describe_steps(run: Run, seconds: float) -> dict[str, str]:
    """Describe how many steps there are and how many of them warm up, where a step takes so many seconds."""
    hours, a_reading = run.options.hours, run.epoch_steps[0]
    if hours is None:
        steps = f"{run.total_steps:,} in {run.options.epochs} epochs of about {a_reading:,}"
        return {"steps": steps, "warm-up": f"{run.warmup:,} steps"}
    steps = (1 - LOOKS_SHARE) * 3600 * hours / seconds
    words = f"about {steps:,.0f} in {steps / a_reading:.1f} epochs of about {a_reading:,}"
    return {"steps": words, "warm-up": f"{run.warmup:g} % of the time"}


def describe_memory(engine: Engine) -> str:
    """Describe the predicted memory beside what is there, and into how many parts a batch is split."""
    needed, there = engine.predict_bytes(engine.micro_batches), engine.available_bytes()
    split = f"; a batch in {engine.micro_batches} parts" if engine.micro_batches > 1 else ""
    return f"about {needed / 1e9:.1f} GB of {there / 1e9:.1f} GB free{split}"


def measure_step(run: Run) -> float:
    """Measure the seconds of an optimizer step of a run, which is not to be trained afterwards."""
    return time_step(run, Engine(run))


def time_step(run: Run, engine: Engine) -> float:
    """Measure the seconds of an optimizer step by taking a few with a learning rate of zero."""
    seconds = []
    batch = next(run.data.epoch_batches(1))
    for number in range(1, TRIAL_STEPS + 1):
        if run.world.is_main:
            known = f", {seconds[-1]:.0f} s each" if seconds and seconds[-1] >= 1 else ""
            say(f"measuring: step {number} of {TRIAL_STEPS}{known} …")
        start = time.perf_counter()
        bool(engine.step(batch, step=number, lr_share=0.0).finite)  # waits for the device
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def list_advice(run: Run, tokens_per_parameter: float) -> list[str]:
    """Return what is worth changing about the plan, one line each."""
    words = []
    if run.epoch_steps[0] < 2:
        words.append("an epoch has very few steps: a smaller --batch_size or --stride gives more")
    if long := describe_long_warmup(run):
        words.append(long)
    if tokens_per_parameter < FEW_TOKENS_PER_PARAMETER and not run.options.pretrained_model:
        words.append(advise_network(run))
    if run.data.num_valid < (2 if run.options.rows else run.window):
        words.append("almost nothing is held out: --valid_fraction 0.05 shows when it begins to memorise")
    return words or ["none: go ahead"]


def describe_long_warmup(run: Run) -> str | None:
    """Say that the learning rate rises for more than half of the run; None where it does not."""
    if 2 * run.warmup <= (100 if run.total_steps is None else run.total_steps):
        return None
    if run.total_steps is None:
        return f"--warmup_steps {run.options.warmup_steps:g}: the learning rate rises for more than half of the run"
    words = f"--warmup_steps {run.options.warmup_steps:g}: the learning rate rises for more than half of the run"
    return f"{words}, {run.total_steps:,} steps; --warmup_steps 0.02 is a share of them"


def advise_network(run: Run) -> str:
    """Advise a smaller network of ours: the largest of them that suits the length of the text, else the smallest."""
    sizes = {}
    for path in (path for path in SMALLER if os.path.exists(ready_file(path))):
        config = read_model_config(path, loud=False)
        sizes[path] = count_config_parameters(config, run.model.config.vocab_size), config["n_positions"]
    sizes = {path: size for path, size in sizes.items() if size[0] < run.num_parameters}
    if not sizes:
        return "the book is small for this network: a smaller --model_config trains in a fraction of the time"
    fitting = [path for path, size in sizes.items() if run.data.num_tokens / size[0] >= FEW_TOKENS_PER_PARAMETER]
    path = (fitting or list(sizes)[-1:])[0]
    count, context = sizes[path]
    changes = {"plan": None, "model_config": path}
    if run.asked.stride and run.asked.stride > context:
        changes["stride"] = context // 2
    command = spell_command(run.command, **changes)
    return (
        f"the book is small for this network; one of {count / 1e6:.1f} million parameters learns it sooner: {command}"
    )


def predict_disk(run: Run) -> dict[str, int]:
    """Predict the bytes a run takes on disk: its model folders and checkpoints, one more than are kept at a time."""
    trained = run.num_trained
    return {
        "models": ((run.options.epochs or 0) + 2) * MODEL_BYTES * run.num_parameters,
        "checkpoints": (run.options.save_total_limit + 1) * CHECKPOINT_BYTES * trained,
    }


def check_disk(run: Run) -> None:
    """Compare the free space with what the run will write.

    Raises:
        UserError: not even two checkpoints and a model fit.
    """
    folder = run.options.output_path
    folder.mkdir(parents=True, exist_ok=True)

    # too little for anything is an error, too little for everything a warning
    free = shutil.disk_usage(folder).free
    needed = sum(predict_disk(run).values())
    trained = run.num_trained
    least = 2 * CHECKPOINT_BYTES * trained + MODEL_BYTES * run.num_parameters
    if free < least:
        message = f"{folder}: {free / 1e9:.1f} GB free, at least {least / 1e9:.1f} GB are needed to save anything"
        raise UserError(message, f"free some space, or --output_dir on another disk than {folder}", EXIT_ENVIRONMENT)
    if free < needed:
        warn(f"{folder}: {free / 1e9:.1f} GB free, the whole run writes up to {needed / 1e9:.1f} GB")


def make_story(run: Run, verdict: Callable[[object], dict]) -> Story:
    """Return what the log tells of a run; verdict: see Story."""
    documents = run.data.documents(run.tokenizer.show)
    prefixes, (places, passage) = find_prefixes(run, documents), find_passage(run)
    writers = make_writers(run, prefixes)

    @functools.cache
    def book() -> CopyIndex:
        return CopyIndex("\n".join(documents))

    def measure(text: str) -> dict:
        return {"copied": book().measure(text), "style": measure_style([text])}

    def facts() -> dict:
        told = [{name: prefix[name] for name in ("kind", "text", "truth")} for prefix in prefixes]
        return tell_facts(run, documents) | {
            "passage": {"text": "".join(passage), "tokens": passage},
            "prefixes": told,
        }

    sizes = {"total_steps": run.total_steps, "hours": run.options.hours, "epochs": run.options.epochs}
    parts = {"sizes": sizes, "facts": facts, "places": places, "measure": measure, "verdict": verdict}
    return Story(run.options.output_path, prefixes=prefixes[: len(writers)], writers=writers, **parts)


def tell_facts(run: Run, documents: list[str]) -> dict:
    """Return the figures that the start of a run tells; its documents as far as they are looked at."""
    options, data = run.options, run.data
    tokens, characters, counting = min(data.num_tokens, LOOKED_AT), sum(map(len, documents)), {}
    if data.num_valid > 1:
        tokens, characters = data.num_valid, data.valid_characters
        counting = data.yardsticks(run.tokenizer.vocab_size) or {}
    return {
        "tokens": data.num_tokens,
        "windows": data.num_rows,
        "parameters": run.num_parameters,
        "batch_size": options.batch_size,
        "context": run.window,
        "tokens_per_character": round(tokens / max(1, characters), 4),
        "yardsticks": {name: round(counting[name], 4) for name in ("kn4", "kn5_cache") if name in counting},
        "book": options.book or name_book(run, documents)[:LONGEST_PREFIX],
        "style": measure_style(documents),
    }


def name_book(run: Run, documents: list[str]) -> str:
    """Return what a book calls itself at its beginning, else the name of its file, else its first line."""
    if named := TITLE.match("".join(documents[:1]).strip()):
        return named[1]
    try:
        report = Path(run.options.raw_data_path).with_suffix(".report.json")  # of clr_ctrl.py
        (book,) = read_json(report)["books"]
        return Path(book["name"]).name.partition(".")[0]
    except (UserError, ValueError, KeyError, TypeError):  # none, several books, or not ours: no reason to stop
        return run.data.opening(run.tokenizer.decode).strip().partition("\n")[0]


def find_prefixes(run: Run, documents: list[str]) -> list[dict]:
    """Return what samples begin with: the one that is shown to people first, then the book's opening, what is held out.

    Returns:
        kind ("own", "opening", "held_out"), text, truth (what really follows, None where nobody knows), seed of each,
        and as shown what a sample begins with; a title is shown without the text that it is for.
    """
    options, tokenizer = run.options, run.tokenizer
    opening = run.data.opening(tokenizer.decode)
    found = [("own", options.sample_prefix, None)] if options.sample_prefix else []
    head = "\n".join(documents[:3])
    place = head.find(opening)
    found.append(("opening", opening, head[place + len(opening) :][:TRUTH] if place >= 0 else None))

    # the held-out part begins where the training text ends, mostly within a chapter
    if run.data.stream is not None and run.data.num_valid > 1:
        labels = next(run.data.valid_batches()).labels[0]
        held = tokenizer.show(labels[labels != NOT_SCORED]).lstrip("\n")
        line = held.partition("\n")[0][:LONGEST_PREFIX]
        found.append(("held_out", line, held[len(line) :][:TRUTH]))
    return [
        {"kind": kind, "text": text, "truth": truth, "seed": options.seed}
        | {"shown": "" if run.data.mark else tokenizer.show(tokenizer.encode_prefix(text))}
        for kind, text, truth in found
    ]


def make_writers(run: Run, prefixes: list[dict]) -> list[Callable[[GPT2LMHeadModel], str]]:
    """Return what continues each prefix with a network; nothing where no samples are wanted.

    The first text is as long as was asked for, the others as far as they cost little beside an epoch.
    """
    length = run.options.sample_length
    if not length or not run.world.is_main or run.options.shard:
        return []
    share = SHARE_OF_EPOCH[run.devices[0].type]
    further = int(run.data.step_tokens * run.epoch_steps[0] / share)  # tokens
    others = [
        functools.partial(continue_prefix, run, prefix["text"], min(length, further))
        for prefix in prefixes[1:]
        if further >= SHORTEST_SAMPLE
    ]
    return [functools.partial(continue_prefix, run, prefixes[0]["text"], length), *others]


def continue_prefix(run: Run, prefix: str, length: int, model: GPT2LMHeadModel) -> str:
    """Return a prefix and what a network under training writes behind it; of a title the title alone."""
    given = run.tokenizer.show(run.tokenizer.encode_prefix(prefix)) if run.data.mark else ""
    settings = {"length": length, "seed": run.options.seed, "is_answer": bool(given)}
    return generate_text(plain_model(model), run.tokenizer, prefix, **settings)[0][len(given) :]


def find_passage(run: Run) -> tuple[slice, list[str]]:
    """Choose the passage whose nats are told at every evaluation, among what the first held-out batch scores.

    Returns:
        The places of its tokens among all that are scored, and their texts, of which a character of several tokens is
        the last one's; nothing where nothing is held out.
    """
    if run.data.num_valid < 2:
        return slice(0), []
    labels = next(run.data.valid_batches()).labels[:, 1:]  # (B, T-1), as score_batches has them
    stream, marks = run.tokenizer.stream(), {index: name for name, index in run.tokenizer.marks.items()}
    texts = [stream.push(index) or marks.get(index, "") for index in labels[labels != NOT_SCORED].tolist()]
    ends = np.cumsum([0, *map(len, texts)])  # characters before each token, and all

    # from the first line on that has half a window before it and enough behind
    lines = (place + 1 for place, text in enumerate(texts) if text.endswith("\n"))
    first = next((place for place in lines if place >= run.window // 2 and ends[-1] - ends[place] >= PASSAGE), 0)
    last = int(np.searchsorted(ends, ends[first] + PASSAGE, side="right")) - 1
    return slice(first, last), texts[first:last]
