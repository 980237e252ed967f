"""What --hours chooses: sizes and arithmetic worked by hand, a choice that is kept, a vocabulary of the book's own."""

import itertools
import json
from types import SimpleNamespace

import pytest

from novelgpt.cli import TrainOptions
from novelgpt.network import count_config_parameters, read_model_config
from novelgpt.training import recipe
from novelgpt.training.recipe import LADDER, flops_per_token, predict_distance, rank_networks, recall_choice

TEXT = "".join(chr(0x4E00 + i % 300) + "，。\n"[i % 3] for i in range(3000))  # every character at least five times


def test_the_ladder_has_networks_of_1_to_82_million_parameters_that_grow_by_at_most_three_times():
    sizes = [count_config_parameters(read_model_config(path, loud=False), 13_317) for path in LADDER]
    assert sizes == sorted(sizes) and sizes[-1] == 81_894_144
    assert all(later < 3.2 * earlier for earlier, later in itertools.pairwise(sizes))
    own = [count_config_parameters(read_model_config(path, loud=False), 4_000) for path in LADDER]
    assert own[0] < 1.2e6


def test_operations_a_token_are_six_a_weight_and_half_a_window_of_attention():
    # one layer, width 2: 48 weights of the block, 10 of the head; queries times keys and weights times values over half
    # a window of 4 are 2 · 2 · 2 · 2 operations forward, and twice as many backward
    assert flops_per_token({"n_layer": 1, "n_embd": 2, "n_positions": 4}, 5) == 6 * 58 + 3 * 16


def test_more_time_and_more_text_promise_a_lower_loss_and_larger_networks():
    rates = {LADDER[0]: 2e11}
    ranked = [rank_networks(700_000, 4_000, hours * 3600, rates) for hours in (0.1, 1, 10)]
    best = [plans[0] for plans in ranked]
    assert best[0].distance > best[1].distance > best[2].distance
    assert best[0].parameters <= best[1].parameters <= best[2].parameters
    assert rank_networks(1_400_000, 4_000, 3600, rates)[0].distance < best[1].distance
    for plans in ranked:
        assert [plan.distance for plan in plans] == sorted(plan.distance for plan in plans)
        assert {plan.model_config for plan in plans} == set(LADDER)


def test_a_network_reads_what_its_own_measured_speed_allows():
    slow, fast = 1e11, 4e11
    plans = {plan.model_config: plan for plan in rank_networks(10_000, 100, 1000, {LADDER[2]: slow, LADDER[3]: fast})}
    config = read_model_config(LADDER[3], loud=False)
    assert plans[LADDER[3]].tokens == pytest.approx(0.95 * 1000 * fast / flops_per_token(config, 100))
    config = read_model_config(LADDER[0], loud=False)  # not measured: as fast as the first
    assert plans[LADDER[0]].tokens == pytest.approx(0.95 * 1000 * slow / flops_per_token(config, 100))
    assert plans[LADDER[0]].readings == pytest.approx(plans[LADDER[0]].tokens / 10_000)
    assert plans[LADDER[0]].batch_size * config["n_positions"] == 4096  # 1.6e7 tokens are 3,900 steps of it


def test_twice_or_half_the_best_size_costs_the_same():
    best = recipe.SIZE
    at_best = predict_distance(best, recipe.TEXT, recipe.COMPUTE)
    assert at_best == recipe.DISTANCE
    larger, smaller = (predict_distance(best * factor, recipe.TEXT, recipe.COMPUTE) for factor in (2, 0.5))
    assert larger == pytest.approx(smaller) and larger > at_best


def test_a_prediction_worked_by_hand(monkeypatch):
    e = 2.718281828459045
    constants = {"COMPUTE": 100, "TEXT": 10, "SIZE": 50, "DISTANCE": -1.0}
    constants |= {"BY_COMPUTE": 0.5, "BY_TEXT": 0.25, "GROWTH": 2.0, "BEND": 0.125}
    for name, value in constants.items():
        monkeypatch.setattr(recipe, name, value)
    # e times the operations: best are 50 e² parameters, and 50 e are one power of e less
    assert predict_distance(50 * e, 10 * e * e, 100 * e) == pytest.approx(-1 - 0.5 - 0.25 * 2 + 0.125)


def test_two_generations_read_as_long_as_a_part_of_the_hours():
    # three fifths are the second one's, whose steps take five quarters of a plain one's
    options = TrainOptions(hours=2.5, second_generation=True)
    assert recipe.seconds_to_learn(options) == pytest.approx(2.5 * 3600 * 0.48)
    assert recipe.seconds_to_learn(TrainOptions(hours=2.5)) == 9000


def write_run(folder, **options):
    """Write the run.json of a run."""
    folder.mkdir(parents=True)
    values = {"options": options, "identity": {}, "total_steps": None}
    (folder / "run.json").write_text(json.dumps(values), encoding="utf-8")


CHOSEN = {"tokenizer_path": "vocab.txt", "model_config": LADDER[2], "batch_size": 16, "stride": 256}


def test_a_run_of_hours_keeps_what_was_chosen_for_it(tmp_path):
    write_run(tmp_path / "model", hours=1.0, **CHOSEN)
    options = TrainOptions(hours=1.0, output_dir=str(tmp_path / "model"))
    assert recall_choice(options) == CHOSEN
    given = TrainOptions(hours=1.0, output_dir=str(tmp_path / "model"), batch_size=4)
    assert recall_choice(given) == {name: value for name, value in CHOSEN.items() if name != "batch_size"}
    assert recall_choice(TrainOptions(hours=1.0, output_dir=str(tmp_path / "model"), resume="never")) == {}


def test_so_does_one_of_which_only_the_first_generation_is_there(tmp_path):
    write_run(tmp_path / "model/first_generation", hours=0.4, **CHOSEN)
    assert recall_choice(TrainOptions(hours=1.0, output_dir=str(tmp_path / "model"))) == CHOSEN


def test_nothing_is_recalled_of_a_run_of_epochs(tmp_path):
    write_run(tmp_path / "model", hours=None, **CHOSEN)
    assert recall_choice(TrainOptions(hours=1.0, output_dir=str(tmp_path / "model"))) == {}


def test_hours_choose_vocabulary_network_batch_and_stride(tmp_path, monkeypatch):
    # a machine on which a step of any network takes a second
    (tmp_path / "train.json").write_text(json.dumps([TEXT[:2000], TEXT[2000:]], ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(recipe, "measure_step", lambda run: 1.0)
    places = {"raw_data_path": "train.json", "tokenized_data_path": "pieces", "output_dir": "model"}
    paths = {name: str(tmp_path / place) for name, place in places.items()}
    options = TrainOptions(raw=True, hours=0.5, device="cpu", **paths)
    chosen = recipe.choose_for_hours(options)
    assert chosen.tokenizer_path == str(tmp_path / "vocab_train.txt")
    lines = (tmp_path / "vocab_train.txt").read_text(encoding="utf-8").split("\n")
    assert {char for char in TEXT if char > "\x7f"} <= set(lines)
    assert chosen.model_config in LADDER
    window = read_model_config(chosen.model_config, loud=False)["n_positions"]
    assert chosen.stride == window and 4 <= chosen.batch_size <= 4096 // window
    assert (chosen.hours, chosen.epochs) == (0.5, None)


@pytest.mark.parametrize("given", [{"hours": None}, {"pretrained_model": "model"}, {"train_file": "lines.txt"}])
def test_nothing_is_chosen_without_hours_or_for_trained_weights_or_for_records(given):
    options = TrainOptions(**{"hours": 1.0, **given})
    assert recipe.choose_for_hours(options) is options


def test_a_plan_tells_the_choice_its_loss_and_that_of_other_networks_and_hours(capsys, monkeypatch):
    monkeypatch.setenv("LANGUAGE", "en")
    rates = {LADDER[2]: 2e11}
    counting = {"kn5_cache": 4.0}
    data = SimpleNamespace(num_valid=9, num_tokens=700_000, count=lambda vocab_size: counting)
    run = SimpleNamespace(data=data, tokenizer=SimpleNamespace(vocab_size=4000))
    plans = rank_networks(700_000, 4_000, 3600, rates)
    recipe.show_choice(plans, rates, run, TrainOptions(hours=1.0, plan=True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["network", "reads", "expected", "beside it", "other hours"]
    assert f"held-out loss {4 + plans[0].distance:.2f} ± {recipe.ERROR:g}; 5-grams with a cache 4.00" in lines[2]
    half, twice = (4 + rank_networks(700_000, 4_000, part * 3600, rates)[0].distance for part in (0.5, 2))
    assert lines[4] == f"other hours: half of them {half:.2f}, twice as many {twice:.2f}"
