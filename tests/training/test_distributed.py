"""Several processes compute what one computes: same losses, any batch size, and they go on where they stopped."""

import re
from dataclasses import asdict, replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from conftest import STORY, make_tiny_options
from helpers import StopAfter, refusal_of
from processes import assert_same_losses, losses_of, run_cases, try_cases
from torch import nn
from torch.distributed import HashStore, TCPStore

from novelgpt.corpus.pieces import tokenize_corpus
from novelgpt.files import read_json, write_json
from novelgpt.messages import UserError
from novelgpt.network import model as network
from novelgpt.training import checkpoint, parallel, trainer
from novelgpt.training.parallel import World
from novelgpt.training.run import prepare_run
from novelgpt.training.trainer import Trainer


@pytest.fixture
def make_case(tmp_path):
    """Return a function that describes a case in its own run folder."""
    options = make_tiny_options(tmp_path, batch_size=8, stride=4, epochs=4, log_step=1)

    def make(name: str, world: int, *, stop_at: int | None = None, save_at: int | None = None, **changes) -> dict:
        changed = replace(options, output_dir=str(tmp_path / name), **changes)
        return {"world": world, "options": asdict(changed), "stop_at": stop_at, "save_at": save_at}

    return make


@pytest.mark.sweep
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_2_and_4_processes_and_two_micro_batches_have_the_losses_of_one_over_20_steps(
    make_case, optimizer, warm_python
):
    cases = [make_case(f"of{world}", world, optimizer=optimizer) for world in (1, 2, 4)]
    cases += [make_case("parts", 1, optimizer=optimizer, gradient_accumulation=2)]
    run_cases(warm_python, cases)
    assert max(step for step, _ in losses_of(cases[0])) >= 20
    assert losses_of(cases[0])[-1][1] < losses_of(cases[0])[0][1] - 0.5
    for case in cases[1:]:
        assert_same_losses(case, cases[0])


@pytest.mark.sweep
def test_few_windows_uneven_micro_batches_and_a_save_that_one_process_asks_for_change_no_loss(make_case, warm_python):
    small = {"batch_size": 3, "stride": 8, "epochs": 2}
    cases = [make_case("one", 1, **small), make_case("four", 4, **small)]
    cases += [make_case("uneven", 2, **small, gradient_accumulation=2)]
    cases += [make_case("saving", 2, **small, save_at=3)]
    run_cases(warm_python, cases)
    for case in cases[1:]:
        assert_same_losses(case, cases[0])


@pytest.mark.sweep
def test_two_processes_that_stopped_go_on_with_the_same_losses_and_a_finished_run_stays(make_case, warm_python):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 2, "log_step": 4}
    whole, stopped = make_case("whole", 1, **sizes), make_case("stopped", 2, stop_at=6, **sizes)
    going_on = {**stopped, "stop_at": None}
    said = run_cases(warm_python, [whole, stopped, going_on, going_on])
    assert said.count("resuming from ") == 1  # the first process alone speaks
    assert "stopped at step 6 of " in said  # two steps after the last log line
    assert f"{stopped['options']['output_dir']}: this run is finished; --resume never starts it again\n" in said
    assert_same_losses(stopped, whole)


@pytest.mark.sweep
def test_processes_that_share_every_weight_out_have_the_losses_of_one_and_go_on_after_a_stop(make_case, warm_python):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 2, "optimizer": "adamw"}
    whole, shared = make_case("whole", 1, **sizes), make_case("shared", 2, stop_at=4, shard=True, **sizes)
    shared["options"]["optimizer"] = "auto"
    said = run_cases(warm_python, [whole, shared, {**shared, "stop_at": None}])
    assert_same_losses(shared, whole)
    assert said.count("--shard: AdamW takes the place of Muon, which needs whole matrices\n") == 2  # once a start
    assert "Warning" not in said


@pytest.mark.sweep
def test_processes_with_a_teacher_have_the_losses_of_one_also_where_they_share_their_own_weights(
    make_case, pretrained, warm_python
):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 2, "optimizer": "adamw", "replace_inputs": 0.2}
    sizes |= {"teacher": f"{pretrained},{pretrained}"}
    cases = [make_case("one", 1, **sizes), make_case("two", 2, **sizes), make_case("shared", 2, **sizes, shard=True)]
    run_cases(warm_python, cases)
    for case in cases[1:]:
        assert_same_losses(case, cases[0])


@pytest.mark.sweep
def test_two_processes_train_two_generations_and_go_on_in_either(make_case, warm_python):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 1, "second_generation": True}
    whole, stopped = make_case("whole", 1, **sizes), make_case("stopped", 2, **sizes)
    # the first stop comes within the first generation, of whose steps the result knows nothing
    codes, said = try_cases(warm_python, [whole, {**stopped, "stop_at": 4}, stopped])
    assert (codes[0], codes[2]) == ([0], [0, 0]), said[-3000:]
    assert "has not left the others" not in said
    assert_same_losses(stopped, whole)
    first = [
        {"options": {"output_dir": f"{case['options']['output_dir']}/first_generation"}} for case in (stopped, whole)
    ]
    assert_same_losses(*first)


@pytest.mark.sweep
def test_two_processes_stop_early_at_the_step_of_one_with_its_best_weights(tmp_path, warm_python):
    spoiling = {
        "documents": [STORY[0]] * 6 + STORY[1:],
        "lr": 0.03,
        "epochs": 6,
        "optimizer": "adamw",
        "replacement": "frequency",
    }
    habits = {"eval_steps": 2, "early_stopping_patience": 2, "load_best_model_at_end": True}
    options = make_tiny_options(tmp_path, **spoiling, **habits)
    one, two = (
        {"world": world, "options": asdict(changed), "stop_at": None, "save_at": None}
        for world in (1, 2)
        for changed in [replace(options, output_dir=str(tmp_path / f"of{world}"))]
    )
    said = run_cases(warm_python, [one, two, two])
    assert_same_losses(two, one)
    assert losses_of(one)[-1][0] == 8  # of 36
    assert said.count("this run is finished; --resume never starts it again\n") == 1
    manifests = [read_json(tmp_path / f"of{world}" / "final_model" / "manifest.json") for world in (1, 2)]
    assert [manifest["step"] for manifest in manifests] == [4, 4]


@pytest.mark.sweep
def test_two_processes_stop_right_after_a_checkpoint_of_its_step_and_go_on(make_case, warm_python):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 2}
    whole, stopped = make_case("whole", 1, **sizes), make_case("stopped", 2, stop_at=4, save_steps=2, **sizes)
    said = run_cases(warm_python, [whole, stopped, {**stopped, "stop_at": None}])
    assert said.count("step-00000004\n") == 1  # saved once
    assert_same_losses(stopped, whole)


@pytest.mark.sweep
def test_two_processes_stop_early_right_after_a_checkpoint(tmp_path, warm_python):
    spoiling = {"documents": [STORY[0]] * 6 + STORY[1:], "lr": 0.03, "epochs": 6, "replacement": "frequency"}
    spoiling |= {"eval_steps": 2, "save_steps": 2}
    options = make_tiny_options(tmp_path, **spoiling, early_stopping_patience=2, save_total_limit=1)
    case = {"world": 2, "options": asdict(options), "stop_at": None, "save_at": None}
    assert "stopped early: 2 evaluations in a row" in run_cases(warm_python, [case])
    assert read_json(options.output_path / "final_model" / "manifest.json")["step"] == losses_of(case)[-1][0] == 8


@pytest.mark.sweep
def test_every_process_reads_where_the_run_stopped_when_the_first_one_has_saved_it(make_case, warm_python):
    case = make_case("stopped", 2, batch_size=4, stride=8, epochs=2, stop_at=5, save_steps=2, save_total_limit=1)
    run_cases(warm_python, [{**case, "is_slow": True}])


@pytest.mark.sweep
def test_all_processes_split_a_batch_that_does_not_fit_into_the_memory_of_one(make_case, warm_python):
    sizes = {"batch_size": 8, "stride": 8, "epochs": 1}
    whole, split = make_case("whole", 1, **sizes), make_case("split", 2, **sizes)
    said = run_cases(warm_python, [whole, split | {"row_limit": 1}])
    assert said.count("warning: --batch_size 8: too large for the memory; computed in 4 parts, same update\n") == 1
    assert_same_losses(split, whole)
    codes, said = try_cases(warm_python, [make_case("none", 2, **sizes) | {"row_limit": 0}])
    assert codes == [[4, 4]]
    assert [line for line in said.splitlines() if line.startswith("error: ")] in (
        ["error: --batch_size 8: does not fit into the memory of cpu, even split"],
        ["error: process 1 of 2: --batch_size 8: does not fit into the memory of cpu, even split"],
    )


@pytest.mark.sweep
def test_processes_with_different_memory_agree_on_the_parts_and_go_on_with_them(make_case, warm_python):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 1}
    whole, split = make_case("whole", 1, **sizes), make_case("split", 2, stop_at=3, **sizes)
    # the first process alone would compute its two rows at once; a resumed run keeps its number
    cases = [whole, {**split, "memory": [10**12, 1]}, {**split, "stop_at": None, "memory": [10**12, 10**12]}]
    said = run_cases(warm_python, cases)
    assert said.count("--batch_size 4: computed in 2 parts to fit the memory, same update") == 1
    assert_same_losses(split, whole)


def test_shared_out_weights_lie_on_the_device_of_the_run_and_not_on_the_current_one(monkeypatch):
    calls = []
    monkeypatch.setattr(parallel, "init_device_mesh", lambda kind, sizes: calls.append((kind, sizes)) or "mesh")
    monkeypatch.setattr(parallel, "fully_shard", lambda part, mesh: calls.append((part, mesh)) or part)
    blocks = [nn.Linear(1, 1), nn.Linear(1, 1)]
    model = SimpleNamespace(transformer=SimpleNamespace(h=blocks))
    module = SimpleNamespace(model=model)
    for device in (torch.device("cuda", 1), torch.device("cpu")):
        calls.clear()
        assert parallel.wrap_model(module, [device], World(1, 3), shard=True) is module
        assert calls[0] == (device.type, (3,))
        assert calls[1:] == [(blocks[0], "mesh"), (blocks[1], "mesh"), (module, "mesh")]


def test_two_processes_plan_together_and_the_first_one_prints(make_case, warm_python):
    said = run_cases(warm_python, [make_case("planned", 2, plan=True)])
    assert (said.count("memory:  "), said.count("measuring: step ")) == (1, 3)


def test_a_process_that_writes_nothing_gives_its_parts_and_keeps_no_copy(tmp_path, monkeypatch):
    options = make_tiny_options(tmp_path)
    options.output_path.mkdir()
    gathered = []
    for module in (checkpoint, trainer, network):  # where each takes it from
        monkeypatch.setattr(module, "gather_tensor", lambda value: gathered.append(value.shape) or value, raising=False)
    found = {}
    for rank in (0, 1):
        run = prepare_run(options)
        one = Trainer(run, StopAfter())
        one.engine.step(next(run.data.epoch_batches(1)), step=1, lr_share=1.0)
        one.run = replace(run, world=World(rank, 1))
        gathered.clear()
        found[rank] = [*one.gather_state(), one.gather_weights()], list(gathered)
    names = len(list(run.model.named_parameters()))
    assert [len(part) for part in found[0][0]] == [names, 3 * names, names]
    assert found[1][0] == [{}, {}, {}]
    assert found[0][1] == found[1][1] and len(found[0][1]) == 5 * names  # both meet in every tensor, in one order


@pytest.mark.sweep
def test_a_process_that_dies_ends_the_others_with_words_and_the_run_goes_on_later(make_case, warm_python):
    sizes = {"batch_size": 4, "stride": 8, "epochs": 1, "save_steps": 2}
    whole, dying = make_case("whole", 1, **sizes), make_case("dying", 3, **sizes)
    codes, said = try_cases(warm_python, [whole, {**dying, "dies_at": 3}, dying])
    assert codes == [[0], [4, 4, 9], [0, 0, 0]], said[-3000:]
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1  # whoever notices it first
    assert re.match(r"error: torchrun: process [01] of 3 has lost another one \(", lines[0])
    assert "hint: see what ended it; the same command goes on from the last checkpoint" in said
    assert_same_losses(dying, whole)


@pytest.mark.sweep
def test_what_the_first_process_refuses_the_others_do_not_wait_for(make_case, warm_python, tmp_path):
    case = make_case("damaged", 2)
    (piece, *_) = sorted((tmp_path / "pieces").glob("*.npy"))
    data = piece.read_bytes()
    piece.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # only the first process reads every byte
    codes, said = try_cases(warm_python, [case])
    assert codes == [[5, 4]], said
    assert "Traceback" not in said
    assert said.count("error: ") == 1 and f"error: {tmp_path / 'pieces'}: {piece.name} has changed" in said


def test_an_error_of_all_processes_is_told_once_and_one_of_a_single_process_names_it(make_case, warm_python, tmp_path):
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    early, late = make_case("early", 2, model_config=str(tmp_path / "bad.json")), make_case("late", 2, eval_steps=2)
    write_json(tmp_path / "train.json", STORY)
    tokenize_corpus(tmp_path / "train.json", tmp_path / "whole", tmp_path / "vocab.txt", num_pieces=2, valid_fraction=0)
    late["options"]["tokenized_data_path"] = str(tmp_path / "whole")  # nothing is held out to evaluate on
    single = make_case("single", 2, batch_size=4) | {"no_memory": 1}
    codes, said = try_cases(warm_python, [early, late, single])
    assert codes[:2] == [[2, 2], [2, 2]] and codes[2][1] == 4 and codes[2][0] == 4, said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert lines[0] == f"error: {tmp_path / 'bad.json'}: n_layer is missing"
    assert lines[1].endswith("--eval_steps: nothing is held out, so there is nothing to evaluate on")
    assert lines[2].startswith("error: process 1 of 2: --batch_size 4: ")
    assert len(lines) == 3 and "Traceback" not in said


@pytest.mark.sweep
def test_the_others_wait_for_the_pieces_of_the_first_process_longer_than_for_anything_else(
    make_case, warm_python, tmp_path
):
    write_json(tmp_path / "train.json", STORY * 3)
    raw = {"raw": True, "raw_data_path": str(tmp_path / "train.json"), "tokenized_data_path": str(tmp_path / "new")}
    slow = make_case("slow", 2, **raw, epochs=1) | {"slow_pieces": 1.5, "roll_call": 0.2}
    said = run_cases(warm_python, [slow])
    assert said.count("pieces: made by the first process; the others wait\n") == 1
    bad = make_case("bad", 2, **raw | {"tokenized_data_path": str(tmp_path / "none"), "min_length": 10**6})
    codes, said = try_cases(warm_python, [bad])
    assert codes == [[3, 4]], said
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        "error: --min_length 1000000: all 9 documents are shorter"
    ]


@pytest.mark.sweep
@pytest.mark.parametrize("by_agent", [False, True])
def test_a_process_that_never_comes_is_missed_after_a_while(monkeypatch, by_agent):
    store = TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)  # as torchrun's agent keeps one
    names = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    if not by_agent:
        del store  # the first process keeps it
    for name, value in {**names, "TORCHELASTIC_USE_AGENT_STORE": str(by_agent)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "MEETING", timedelta(seconds=1))
    problem = refusal_of(parallel.join_world, torch.device("cpu"))
    reason = "process 1 of 2 has not come" if by_agent else "Timed out after 2 seconds waiting for clients. 1/2 clients"
    assert problem.message.startswith(f"torchrun: the processes could not meet: {reason}")
    assert problem.hint == "start with torchrun --nproc_per_node=N train.py …"


def test_the_process_that_is_waited_for_is_named():
    store = HashStore()
    for rank in (0, 2):
        store.set(f"start/{rank}", "here")
    world = World(1, 4, store)
    assert parallel.find_missing(world, "start", timedelta(seconds=0.01)) == [3]
    assert store.get("start/1") == b"here"
    assert parallel.describe_missing([3], 4) == "process 3 of 4 has not come"
    assert parallel.describe_missing([1, 3], 4) == "processes 1, 3 of 4 have not come"


def test_a_process_that_does_not_answer_any_more_is_named(monkeypatch):
    store = HashStore()
    store.set("lost/0", "here")
    monkeypatch.setattr(parallel, "ROLL_CALL", timedelta(seconds=0.01))
    words = "[unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete"
    with pytest.raises(UserError) as caught, parallel.explaining_losses(World(1, 3, store)):
        raise RuntimeError(words)
    assert caught.value.message == f"torchrun: process 1 of 3 waited for process 2 in vain ({words})"
    with pytest.raises(RuntimeError, match="shapes"), parallel.explaining_losses(World(1, 3, store)):
        raise RuntimeError("shapes cannot be multiplied")
