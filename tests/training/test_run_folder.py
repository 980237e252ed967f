"""What may lie in a run folder when a run begins, and what a run takes from an earlier one's."""

import shutil
from dataclasses import replace

import pytest
import torch
from conftest import STORY
from helpers import read_log, refusal_of, stopping_after

from novelgpt import train
from novelgpt.corpus.pieces import tokenize_corpus
from novelgpt.files import read_json, sha256_of, write_json
from novelgpt.network import build_model, check_model_folder, save_model
from novelgpt.training import run, session
from novelgpt.training.checkpoint import list_checkpoints, read_progress

WORSENING = {
    "replacement": "frequency",
    "documents": [STORY[0]] * 6 + STORY[1:],
    "lr": 0.03,
    "epochs": 6,
    "eval_steps": 2,
}
LATER = ("lr_end", "eval_steps", "early_stopping_patience", "load_best_model_at_end", "deterministic")


pytestmark = pytest.mark.usefixtures("no_flushing")


def stop_after(questions: int, options) -> None:
    """Train until the loop has asked so often whether to stop."""
    with stopping_after(questions):
        assert session.train(options) == 0


def change_run_file(options, change) -> None:
    """Let a function change run.json."""
    path = options.output_path / "run.json"
    values = read_json(path)
    change(values)
    write_json(path, values)


def without_later_names(values: dict) -> None:
    """Leave out what former identities did not have."""
    values["identity"] = {name: value for name, value in values["identity"].items() if name not in LATER}


def test_an_unfinished_run_of_the_former_format_goes_on_with_defaults_only(tiny_options):
    options = tiny_options()
    stop_after(9, options)
    change_run_file(options, without_later_names)
    problem = refusal_of(session.train, replace(options, lr_end=1e-4))
    assert problem.message.endswith("other settings\n  lr_end: was 0.0, now 0.0001")
    assert train(options).finished
    assert [record["step"] for record in read_log(options.output_path)][-1] == 18


@pytest.mark.parametrize("is_former", [False, True])
def test_fp16_is_a_precision_that_a_run_goes_on_with(tiny_options, monkeypatch, is_former):
    monkeypatch.setattr(run, "choose_precision", lambda name, device, flag: torch.float32)  # a CPU has no fp16
    plain = tiny_options(precision="auto")
    options = replace(plain, fp16=True)
    stop_after(9, options)
    assert read_json(options.output_path / "run.json")["identity"]["precision"] == "fp16"
    if is_former:
        change_run_file(options, lambda values: values["identity"].update(precision="auto"))
    problem = refusal_of(session.train, plain)
    assert problem.message.endswith('other settings\n  precision: was "fp16", now "auto"')
    assert "novelgpt.train(…, allow_change='precision')" in problem.hint
    assert train(options).finished


@pytest.mark.parametrize("resume", ["never", "auto"])
@pytest.mark.parametrize("name", ["run/final_model", "run"])
def test_a_model_in_the_run_folder_is_not_trained_on_and_nothing_is_moved(
    tiny_options, tiny_config, tiny_tokenizer, tmp_path, monkeypatch, name, resume
):
    save_model(build_model(tiny_config, tiny_tokenizer, seed=3), tiny_tokenizer, tmp_path / name)
    (tmp_path / "run" / "checkpoints").mkdir()
    options = tiny_options(resume=resume, tokenizer_path=None)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    problem = refusal_of(session.train, replace(options, pretrained_model=name))
    assert str(problem) == (
        f"error: --pretrained_model {name}: lies in the run folder {options.output_dir}, "
        "whose models are written over or moved\n\nhint: --output_dir other/"
    )
    assert problem.code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_stopped_early_is_finished_for_the_api_and_one_that_lacks_its_final_model_is_not(tiny_options):
    options = tiny_options(**WORSENING, early_stopping_patience=2)
    result = train(options)
    assert (result.finished, result.step < result.total_steps, result.best_epoch) == (True, True, 0.67)
    shutil.rmtree(options.output_path / "final_model")
    assert not train(replace(options, plan=True)).finished
    assert train(options).finished


def test_a_run_that_goes_on_in_another_folder_takes_the_best_model_with_it(tiny_options, tmp_path, monkeypatch):
    habits = {"early_stopping_patience": 2, "load_best_model_at_end": True, "save_steps": 2, "save_total_limit": 9}
    options = tiny_options(**WORSENING, **habits)
    assert train(options).finished
    last = list_checkpoints(options.output_path)[-2]
    assert (read_progress(last).step, read_progress(last).best_step) == (6, 4)
    new = replace(options, output_dir=str(tmp_path / "new"), resume=str(last))
    result = train(new)
    assert result.finished and result.model.is_dir()
    assert read_json(new.output_path / "final_model" / "manifest.json")["step"] == 4
    for name in ("best_model", "final_model"):
        path = f"{name}/model.safetensors"
        assert (new.output_path / path).read_bytes() == (options.output_path / path).read_bytes()


def test_a_checkpoint_whose_best_model_is_gone_is_refused_before_anything_is_written(tiny_options, tmp_path, capsys):
    options = tiny_options(**WORSENING, load_best_model_at_end=True, save_steps=2, save_total_limit=99)
    assert train(options).finished
    second, best = list_checkpoints(options.output_path)[0], options.output_path / "best_model"
    assert read_progress(second).best_step == 2
    new = replace(options, output_dir=str(tmp_path / "new"), resume=str(second))
    problem = refusal_of(session.train, new)
    message = f"--resume {second}: {best} is not whole or not of its best step, 2"
    hint = "--no-load_best_model_at_end --allow_change load_best_model_at_end gives final_model the last weights"
    assert str(problem) == f"error: {message}, so it could not become final_model\n\nhint: {hint}"
    assert problem.code == 5
    assert not new.output_path.exists()
    capsys.readouterr()
    assert train(replace(new, load_best_model_at_end=False, allow_change="load_best_model_at_end")).finished
    assert f"warning: {message}; best_model will be that of the next better evaluation\n" in capsys.readouterr().err


COMMAND = ["train.py", "--raw"]


@pytest.fixture
def four_epochs(tiny_options):
    """The options of a finished run of four readings, too few for inputs to be replaced."""
    options = tiny_options(epochs=2, replace_inputs=None, lr=None, weight_decay=None)
    assert session.train(options, command=COMMAND) == 0
    return options


@pytest.mark.parametrize(("share", "rule"), [(0.15, "frequency"), (0.0, "neighbours")])
def test_a_run_from_before_there_was_a_choice_replaced_its_inputs_by_frequency(tiny_options, share, rule):
    options = tiny_options(epochs=1, replace_inputs=share)
    assert session.train(options) == 0
    path = options.output_path / "run.json"
    former = read_json(path)
    del former["identity"]["replacement"]
    write_json(path, former)
    assert run.read_run_file(path)["identity"]["replacement"] == rule


def test_more_epochs_of_a_finished_run_are_allowed_in_one_go_with_what_follows_from_them(four_epochs, capsys):
    more = replace(four_epochs, epochs=6)
    problem = refusal_of(session.train, more, command=[*COMMAND, "--epochs", "6"])
    assert str(problem) == (
        f"error: {more.output_path}: holds a finished run with other settings\n"
        "  epochs: was 2, now 6\n  replace_inputs: was 0.0, now 0.15\n\n"
        "hint: to go on with the change: python train.py --raw --epochs 6 --allow_change epochs\n"
        "to start anew, the old run moved aside: python train.py --raw --epochs 6 --resume never"
    )
    capsys.readouterr()
    assert session.train(replace(more, allow_change="epochs")) == 0
    said = capsys.readouterr().err
    assert (
        "warning: step 12: the learning rate goes up from 0 to 0.0026, where the longer run has it; "
        "the loss rises with it for a while\n" in said
    )
    assert read_json(more.output_path / "run.json")["identity"]["replace_inputs"] == 0.15


def test_a_run_that_would_gain_from_more_epochs_says_the_command_and_it_goes_on(tiny_options, capsys):
    options = tiny_options(epochs=1)
    assert session.train(options, command=[*COMMAND, "--resume", "never"]) == 0
    hint = "for twice as many: python train.py --raw --epochs 2 --allow_change epochs\n"
    assert capsys.readouterr().err.endswith(hint)
    assert session.train(replace(options, epochs=2, allow_change="epochs")) == 0


def test_another_vocabulary_is_told_by_its_place(tiny_options, tmp_path):
    options = tiny_options()
    stop_after(9, options)
    shutil.copy(tmp_path / "vocab.txt", tmp_path / "other.txt")
    with open(tmp_path / "other.txt", "a", encoding="utf-8") as file:
        file.write("龘\n")
    write_json(tmp_path / "train.json", STORY * 3)
    facts = {"valid_fraction": 0.3, "num_pieces": 3}
    tokenize_corpus(tmp_path / "train.json", tmp_path / "more", tmp_path / "other.txt", **facts)
    change_run_file(options, lambda values: values["identity"].update(corpus=sha256_of(tmp_path / "train.json")))
    other = replace(options, tokenizer_path=str(tmp_path / "other.txt"), tokenized_data_path=str(tmp_path / "more"))
    message = refusal_of(session.train, other).message
    assert message.endswith(f'\n  vocabulary: was "{tmp_path / "vocab.txt"}", now "{tmp_path / "other.txt"}"')


def test_the_hint_keeps_what_was_allowed_and_lists_every_difference(four_epochs):
    changed = replace(four_epochs, epochs=6, lr=1e-3, log_step=7, allow_change="epochs")
    problem = refusal_of(session.train, changed, command=[*COMMAND, "--allow_change", "epochs"])
    lines = problem.message.split("\n")
    assert lines[1:] == [
        "  epochs: was 2, now 6",
        "  lr: was 0.0039191835884530846, now 0.001",  # 8e-4 · √(768 / 32), as of 32 numbers wide
        "  replace_inputs: was 0.0, now 0.15",
        "  log_step: was 3, now 7",
    ]
    assert problem.hint.split("\n")[0] == (
        "to go on with the change: python train.py --raw --allow_change epochs,lr,log_step"
    )
    assert session.train(replace(changed, allow_change="epochs,lr,log_step", max_hours=1e-9)) == 0


def test_an_option_that_was_given_and_is_left_out_now_is_no_automatic_change(tiny_options):
    options = tiny_options(lr=5e-3)
    stop_after(9, options)
    problem = refusal_of(session.train, replace(options, lr=None, epochs=4, allow_change="epochs"))
    assert "\n  lr: was 0.005, now " in problem.message
    assert "allow_change='epochs,lr'" in problem.hint


def test_an_unfinished_run_with_another_seed_is_gone_on_with_by_the_command_that_began_it(tiny_options):
    options = tiny_options()
    with stopping_after(9):
        assert session.train(options, command=["train.py", "--raw", "--resume=never"]) == 0
    problem = refusal_of(session.train, replace(options, seed=3), command=["train.py", "--raw", "--seed=3"])
    assert str(problem) == (
        f"error: {options.output_path}: holds an unfinished run with other settings\n  seed: was 0, now 3\n\n"
        "hint: to go on as before: python train.py --raw\n"
        "to start anew, the old run moved aside: python train.py --raw --seed=3 --resume never"
    )


def test_another_network_is_told_by_the_keys_that_differ(tiny_options):
    options = tiny_options()
    stop_after(9, options)
    change_run_file(options, lambda values: values["identity"]["model_config"].update(n_layer=5, n_inner=8))
    problem = refusal_of(session.train, options)
    assert problem.message.endswith("\n  model_config: n_layer: was 5, now 2; n_inner: was 8, now null")


def test_a_run_of_another_book_is_told_by_the_beginnings_of_both(tiny_options, tmp_path):
    options = tiny_options()
    stop_after(9, options)
    (tmp_path / "run2").mkdir()
    other = tiny_options(documents=[f"第一回 石头\n{STORY[1]}"] * 9)
    problem = refusal_of(session.train, other, command=["train.py", "--raw"])
    message, hint = problem.message.split("\n"), problem.hint.split("\n")
    assert message[0] == f"{options.output_path}: holds a run of another book"
    assert message[1].startswith("  there: “第一章 井”, 6 documents, ")
    assert message[2].startswith("  now: “第一回 石头”, 6 documents, ")
    assert hint[0] == f"python train.py --raw --output_dir {tmp_path / 'run3'}"
    assert hint[1] == "(a folder for each book: clr_ctrl.py NOVEL.txt --book NAME, then train.py --raw --book NAME)"
    change_run_file(options, lambda values: values.pop("book"))  # as earlier versions wrote it
    assert "\n  there: data/train.json\n" in refusal_of(session.train, other).message


@pytest.mark.parametrize(
    ("resume", "steps", "saved", "hint"),
    [
        ("auto", [], "0 of 1,200", "python train.py --raw --epochs 3"),
        ("never", [500, 750], "750 of 1,200", "python train.py --raw --epochs 3 --resume auto"),
    ],
)
def test_the_model_of_a_run_that_has_not_ended_comes_by_the_runs_own_command(tmp_path, resume, steps, saved, hint):
    words = ["train.py", "--raw", "--epochs", "3", *(["--resume", resume] if resume != "auto" else [])]
    write_json(tmp_path / "run.json", {"options": {"resume": resume}, "command": words, "total_steps": 1200})
    for step in steps:
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    missing = tmp_path / "final_model"
    problem = refusal_of(check_model_folder, missing)
    assert problem.message == f"{missing}: no such folder: training has not ended, {saved} steps are saved"
    assert problem.hint == hint
    (tmp_path / "best_model").mkdir()
    (tmp_path / "best_model" / "config.json").touch()
    assert refusal_of(check_model_folder, missing).hint == f"--model_path {tmp_path / 'best_model'}"
    (tmp_path / "best_model").rename(tmp_path / "final_model")  # now it has ended
    missing = tmp_path / "model_epoch9"
    said = f"{missing}: no such folder, expected a model folder"
    assert refusal_of(check_model_folder, missing).message == said
