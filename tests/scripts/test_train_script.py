"""train.py from its command line: it trains on the bundled story, and a wrong input is a message and an exit code."""

import json
import shlex
import traceback
from pathlib import Path

import pytest
from conftest import ROOT, STORY, TINY
from helpers import read_log, stopping_after
from transformers import GPT2LMHeadModel

import train as train_script
from novelgpt.cli import run
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import find_damage, read_json, write_json
from novelgpt.training.optim import Muon

CHAPTERS = 6  # of the bundled story


pytestmark = pytest.mark.usefixtures("no_flushing")


@pytest.fixture
def argv(tmp_path) -> list[str]:
    """The command line of a run that takes a second."""
    story = json.loads((ROOT / "data" / "sample" / "clean.json").read_text(encoding="utf-8"))
    chapters = [chapter[:400] for chapter in story[:CHAPTERS]]
    write_json(tmp_path / "train.json", chapters)
    write_json(tmp_path / "config.json", {**TINY, "n_positions": 64, "n_ctx": 64})
    save_vocabulary(tmp_path / "vocab.txt", build_vocabulary(chapters))
    paths = {
        "model_config": "config.json", "tokenizer_path": "vocab.txt", "raw_data_path": "train.json",
        "tokenized_data_path": "pieces", "output_dir": "run",
    }  # fmt: skip
    words = [f"--{name}={tmp_path / path}" for name, path in paths.items()]
    words += "--epochs 2 --stride 32 --batch_size 8 --lr 1e-2 --log_step 5 --num_pieces 4 --device cpu".split()
    return [*words, "--valid_fraction=0.2", "--sample_length=5", "--precision=fp32"]


def train(argv: list[str], *more: str) -> int:
    """Run the script; return its exit status."""
    return run(train_script.main, [*argv, *more])


def refusal(capsys, argv: list[str], *more: str) -> tuple[int, str]:
    """Return exit status and the last paragraph pair of a refused run."""
    status = train(argv, *more)
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    return status, said.err[said.err.rindex("error: ") :]


def test_a_run_says_what_it_does_and_leaves_whole_folders(argv, tmp_path, capsys):
    assert train(argv, "--raw") == 0
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.split("\n")
    assert any(line.startswith("number of parameters: ") for line in lines)
    assert any(line.startswith("data: ") for line in lines)
    assert any(line.startswith("device: cpu") and "seed 0" in line for line in lines)
    assert sum(line.startswith("sample: ") for line in lines) == 2
    for name in ("model_epoch1", "model_epoch2", "best_model", "final_model"):
        assert find_damage(tmp_path / "run" / name) is None, name
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    held_out = [record["valid_loss"] for record in records if "valid_loss" in record]
    assert len(held_out) == 3 and held_out[-1] < held_out[0] - 0.3
    steps = [record for record in records if "lr" in record]
    assert set(steps[0]) >= {"step", "epoch", "loss", "lr", "tokens_per_second"}
    assert steps[-1]["lr"] == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["total_steps"] == steps[-1]["step"] == records[-1]["step"]
    assert facts["options"]["epochs"] == 2
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "run" / "final_model").config.n_positions == 64


def test_the_same_command_again_is_finished_and_other_settings_are_refused(argv, tmp_path, capsys):
    assert train(argv, "--raw", "--epochs=1") == 0
    assert train(argv, "--raw", "--epochs=1") == 0
    said, _, more = capsys.readouterr().err.rpartition("for more epochs: python train.py ")
    assert more.endswith(" --raw --epochs 2 --allow_change epochs\n")
    assert said.endswith(
        f"{tmp_path / 'run'}: this run is finished; --resume never starts it again\n"
        f"write with it: python generate.py --model_path {tmp_path / 'run/final_model'}\n"
    )
    status, said = refusal(capsys, argv, "--epochs=1", "--seed=3")
    assert status == 5
    assert said == (
        f"error: {tmp_path / 'run'}: holds a finished run with other settings\n  seed: was 0, now 3\n\n"
        "hint: to start anew, the old run moved aside: "
        f"{shlex.join(['python', 'train.py', *argv, '--epochs=1', '--seed=3', '--resume', 'never'])}\n"
    )


def test_missing_pieces_are_an_error_with_the_command_that_makes_them(argv, tmp_path, capsys):
    status, said = refusal(capsys, argv)
    assert status == 5
    folder = tmp_path / "pieces"
    assert said == (
        f"error: {folder}: no pieces here (manifest.json is missing)\n\n"
        f"hint: {shlex.join(['python', 'train.py', *argv, '--raw'])}\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_none_is_refused_before_anything_is_written(argv, tmp_path, capsys):
    status, said = refusal(capsys, argv, "--raw", "--device", "abc")
    assert status == 2
    assert said == (
        "error: --device: found 'abc', expected GPU numbers, cuda, mps or cpu\n\n"
        "hint: --device 0 or --device 0,1 for GPUs, --device mps, --device cpu\n"
    )
    assert not (tmp_path / "pieces").exists() and not (tmp_path / "run").exists()


def test_two_gpus_asked_for_where_there_is_none_trains_on_the_cpu_and_says_so(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert train(argv, "--raw", "--device", "0,1", "--epochs", "1") == 0
    said = capsys.readouterr().err
    assert "warning: --device 0,1: no GPU 0, 1 (there is no GPU); using the CPU\n" in said
    assert find_damage(tmp_path / "run" / "final_model") is None


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"n_layers": 2}, "unknown key n_layers", "did you mean n_layer?"),
        ({"n_head": 5}, "n_embd 32 is not divisible by n_head 5", '"n_head": 4'),
        ({"n_embd": "32"}, "n_embd: found '32', expected a whole number from 1 to 16384", '"n_embd": 1'),
    ],
)
def test_a_config_typo_is_refused_by_key(argv, tmp_path, capsys, changes, message, hint):
    path = tmp_path / "config.json"
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})
    status, said = refusal(capsys, argv, "--raw")
    assert (status, said) == (2, f"error: {path}: {message}\n\nhint: {hint}\n")
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_no_json_is_refused_with_line_and_column(argv, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"n_layer": 2,\n "n_embd" 32}', encoding="utf-8")
    status, said = refusal(capsys, argv, "--raw")
    assert status == 2
    assert "config.json: not valid JSON: Expecting ':' delimiter: line 2 column 11 (char 25)\n" in said


def test_a_missing_corpus_is_refused(argv, tmp_path, capsys):
    (tmp_path / "train.json").unlink()
    status, said = refusal(capsys, argv, "--raw")
    assert status == 3
    assert said.startswith(f"error: {tmp_path / 'train.json'}: ")


def test_a_missing_vocabulary_is_refused(argv, tmp_path, capsys):
    (tmp_path / "vocab.txt").unlink()
    status, said = refusal(capsys, argv, "--raw")
    assert status == 3
    assert said.startswith(f"error: {tmp_path / 'vocab.txt'}: ")


def test_pieces_of_another_vocabulary_are_refused(argv, tmp_path, capsys):
    assert train(argv, "--raw", "--epochs=1") == 0
    save_vocabulary(tmp_path / "vocab.txt", build_vocabulary([*STORY, "龘"]))
    status, said = refusal(capsys, argv)
    assert status == 5
    assert said.startswith(f"error: {tmp_path / 'pieces'}: the pieces are stale\n  vocabulary: made from sha256 ")
    assert said.endswith(f"hint: {shlex.join(['python', 'train.py', *argv, '--raw'])}\n")


def test_pieces_of_another_book_are_refused_with_both_books_and_the_flag(argv, tmp_path, capsys):
    assert train(argv, "--raw", "--epochs=1") == 0
    capsys.readouterr()
    manifest = read_json(tmp_path / "pieces" / "manifest.json")
    write_json(tmp_path / "train.json", ["第一回 石头\n女娲炼石补天。"])
    status, said = refusal(capsys, argv, f"--raw_data_path={tmp_path / 'train.json'}")
    assert status == 5
    assert said == (
        f"error: {tmp_path / 'pieces'}: the pieces are of another text\n"
        f"  pieces: “《九井灵潮》”, from {tmp_path / 'train.json'}, "
        f"{manifest['train']['tokens']:,} tokens\n"
        f"  now: “第一回 石头”, from {tmp_path / 'train.json'}\n\n"
        f"hint: {shlex.join(['python', 'train.py', *argv, f'--raw_data_path={tmp_path}/train.json', '--raw'])}\n"
        "(a folder for each book: clr_ctrl.py NOVEL.txt --book NAME, then train.py --raw --book NAME)\n"
    )
    assert train(argv, "--raw", "--plan") == 0  # what the hint says runs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epochs 0", "--epochs: found '0', expected a whole number from 1 to 1000000"),
        ("--batch_size -1", "--batch_size: found '-1', expected a whole number from 1 to 1000000"),
        ("--lr nan", "--lr: found 'nan', expected a number from 0 to 1"),
        ("--stride 0", "--stride: found '0', expected a whole number from 1 up"),
        ("--stride 65", "--stride 65: longer than the window of 64 tokens, so text would be skipped"),
        ("--warmup_steps 1.5", "--warmup_steps: found '1.5', expected a share below 1 or a whole number of steps"),
        ("--until 25:00", "--until: found '25:00', expected a time from 00:00 to 23:59"),
        ("--fp16 --precision auto", "--fp16: cpu does not compute in fp16"),
        ("--precision fp16", "--precision fp16: cpu does not compute in fp16"),
        ("--epoch 3", "unknown option --epoch"),
        ("--writer", "unknown option --writer"),
    ],
)
def test_a_wrong_option_is_exit_2_with_flag_value_and_range(argv, capsys, words, message):
    status, said = refusal(capsys, argv, "--raw", *words.split())
    assert status == 2
    assert said.split("\n")[0] == f"error: {message}"


def test_a_model_folder_is_trained_on(argv, tmp_path, capsys):
    assert train(argv, "--raw", "--epochs=1") == 0
    former = tmp_path / "run" / "final_model"
    more = [f"--output_dir={tmp_path / 'more'}", f"--pretrained_model={former}", "--lr=1e-3", "--log_step=1"]
    assert train(argv, *more, "--epochs=1") == 0
    records = read_log(tmp_path / "more")
    manifest = json.loads((former / "manifest.json").read_text(encoding="utf-8"))
    assert records[0]["valid_loss"] == pytest.approx(manifest["valid_loss"], rel=1e-5)  # it begins where that one ended


def test_an_output_folder_with_a_strange_name_works(argv, tmp_path):
    folder = tmp_path / "我 的 模型 😀"
    assert train(argv, "--raw", "--epochs=1", f"--output_dir={folder}") == 0
    assert find_damage(folder / "final_model") is None


def test_an_output_folder_that_is_a_file_is_refused(argv, tmp_path, capsys):
    (tmp_path / "run").write_text("x", encoding="utf-8")
    status, said = refusal(capsys, argv, "--raw")
    assert status == 4
    assert said.startswith(f"error: {tmp_path / 'run'}: cannot be written: ")


def test_from_the_command_line_to_an_optimizer_step_there_are_six_frames_of_ours(argv, monkeypatch):
    frames = []

    def step(optimizer):
        frames.extend(frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ROOT))
        raise KeyboardInterrupt

    monkeypatch.setattr(Muon, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_script.main([*argv, "--raw", "--optimizer=muon"])
    names = [frame.name for frame in frames if "tests" not in frame.filename and ".venv" not in frame.filename]
    assert names == ["main", "train", "train", "fit", "step", "update"]


def test_the_command_line_is_in_run_json_and_in_what_a_stopped_run_says(argv, tmp_path, capsys):
    with stopping_after(5):
        assert train(argv, "--raw") == 0
    words = ["train.py", *argv, "--raw"]
    assert read_json(tmp_path / "run" / "run.json")["command"] == words
    assert capsys.readouterr().err.endswith(f"continue with: {shlex.join(['python', *words])}\n")
