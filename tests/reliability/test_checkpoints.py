"""Damage to a checkpoint is noticed and the one before is used; what is needed is never removed; no number is none."""

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.messages import UserError
from novelgpt.network import build_model, read_model_config
from novelgpt.training import checkpoint
from novelgpt.training.checkpoint import Progress, find_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from novelgpt.training.optim import build_optimizers
from reliability.harness import cases, make_tiny_run, remove

SEED = 7
FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
JUNK = (b"", b"{", b"[" * 100_000, b'{"files": ' + b"9" * 5000 + b"}", b"\xff\xfe\x00", b"null", b'{"files": {}}')


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Do not wait for the disk: no power fails in a test."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


# --- damage ---


def cut(newest: Path, _older: Path, name: str, choices: random.Random) -> None:
    data = (newest / name).read_bytes()
    (newest / name).write_bytes(data[: choices.randrange(len(data))])


def flip(newest: Path, _older: Path, name: str, choices: random.Random) -> None:
    data = bytearray((newest / name).read_bytes())
    data[choices.randrange(len(data))] ^= 1 << choices.randrange(8)
    (newest / name).write_bytes(data)


def lose(newest: Path, _older: Path, name: str, _choices: random.Random) -> None:
    (newest / name).unlink()


def grow(newest: Path, _older: Path, name: str, choices: random.Random) -> None:
    with open(newest / name, "ab") as file:
        file.write(choices.randbytes(choices.randint(1, 9)))


def swap_steps(newest: Path, older: Path, name: str, _choices: random.Random) -> None:
    shutil.copyfile(older / name, newest / name)


def swap_files(newest: Path, _older: Path, name: str, choices: random.Random) -> None:
    other = choices.choice([other for other in FILES if other != name])
    os.rename(newest / name, newest / "x")
    os.rename(newest / other, newest / name)
    os.rename(newest / "x", newest / other)


def make_folder(newest: Path, _older: Path, name: str, _choices: random.Random) -> None:
    (newest / name).unlink()
    (newest / name).mkdir()


def link_elsewhere(newest: Path, _older: Path, name: str, _choices: random.Random) -> None:
    os.rename(newest / name, newest.parent.parent / "outside")
    (newest / name).symlink_to(newest.parent.parent / "outside")
    if name == "manifest.json":  # a link is no damage to a manifest, the file behind it is
        (newest.parent.parent / "outside").write_bytes(b"{}")


def fill_with_junk(newest: Path, _older: Path, name: str, choices: random.Random) -> None:
    (newest / name).write_bytes(choices.choice(JUNK))


def edit_manifest(newest: Path, _older: Path, name: str, choices: random.Random) -> None:
    manifest = json.loads((newest / "manifest.json").read_bytes())
    files = manifest["files"]
    name = choices.choice(FILES[:3])
    entry = files[name]
    edits: list[Callable[[], object]] = [
        lambda: entry.update(bytes=entry["bytes"] + choices.choice((-1, 1, 10**18))),
        lambda: entry.update(sha256=entry["sha256"][::-1]),
        lambda: entry.update(sha256=None),
        lambda: entry.update(bytes="many"),
        lambda: files.pop(name),
        lambda: files.update({choices.choice(("../a", "/etc/passwd", "a\0", "", "..", "x/../y")): entry}),
        lambda: files.update({"more.bin": entry}),
        lambda: manifest.update(files=[name]),
        lambda: manifest.pop("files"),
        lambda: manifest.update(step=manifest["step"] + 1),
    ]
    choices.choice(edits)()
    (newest / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def rename_step(newest: Path, _older: Path, _name: str, _choices: random.Random) -> None:
    os.rename(newest, newest.with_name("step-00000099"))


def replace_by_file(newest: Path, _older: Path, _name: str, _choices: random.Random) -> None:
    shutil.rmtree(newest)
    newest.write_bytes(b"not a folder")


DAMAGES = (
    cut, flip, flip, lose, grow, swap_steps, swap_files, make_folder, link_elsewhere, fill_with_junk, edit_manifest,
    edit_manifest, rename_step, replace_by_file,
)  # fmt: skip


def test_damaged_checkpoints(tmp_path, ledger, capsys):
    make_tiny_run(tmp_path)
    config, tokenizer = read_model_config(tmp_path / "config.json"), load_tokenizer(tmp_path / "vocab.txt")
    model = build_model(config, tokenizer)
    optimizers = build_optimizers(model, "adamw", lr=1e-2, weight_decay=0.1, betas=(0.9, 0.99))
    model(torch.arange(14)[None], labels=torch.arange(14)[None]).loss.backward()
    optimizers[0].step()
    for step in (8, 10, 12):
        progress = Progress(step=step, batch=step, loss_sum=0.1 * step)
        weights, moments = checkpoint.training_weights(model), checkpoint.optimizer_tensors(optimizers, model)
        weights, moments = ({name: value + step for name, value in part.items()} for part in (weights, moments))
        save_checkpoint(tmp_path / "run", progress, weights, moments, keep=3)
    choices, faults, count = random.Random(SEED), [], cases(42, 600, 10_000)
    for number in range(count):
        run_dir = tmp_path / "damaged" / "run"
        shutil.copytree(tmp_path / "run", run_dir, copy_function=shutil.copyfile)
        oldest, older, newest = list_checkpoints(run_dir)
        damage, name = DAMAGES[number % len(DAMAGES)], choices.choice(FILES)
        damage(newest, older, name, choices)
        capsys.readouterr()
        what = f"{damage.__name__} {name}"
        try:
            found = find_checkpoint(run_dir)
            warning = capsys.readouterr().err
            if found != older or "set aside as" not in warning:
                faults.append(f"{what}: took {found}; {warning}")
            elif load_checkpoint(found, model, optimizers).step != 10:
                faults.append(f"{what}: the state of another step")
        except Exception as problem:
            faults.append(f"{what}: {problem!r}")
        remove(tmp_path / "damaged")
    assert oldest.name == "step-00000008"
    ledger("Damaged checkpoints: noticed, named, set aside, the one before is loaded", faults, count)


# --- retention ---


def test_retention(tmp_path, ledger, monkeypatch, capsys):
    """Histories of saves, damages, kills while pruning and resumes; links stand in for the large files."""
    (tmp_path / "large").write_bytes(b"weights")
    monkeypatch.setattr(checkpoint, "write_safetensors", lambda _tensors, path: os.link(tmp_path / "large", path))
    choices, faults, count = random.Random(SEED), [], cases(30, 10_000, 1_000_000)
    for number in range(count):
        run_dir = tmp_path / f"history{number}"
        (run_dir / "best_model").mkdir(parents=True)
        fault = retention_fault(run_dir, choices)
        if fault:
            faults.append(f"history {number}: {fault}")
        remove(run_dir)
    capsys.readouterr()
    ledger("Retention histories: the best model and the newest valid checkpoint are always there", faults, count)


def retention_fault(run_dir: Path, choices: random.Random) -> str | None:
    """Live through one history; say when something that was needed went."""
    keep, whole, step = choices.randint(1, 3), set(), 0
    for _ in range(choices.randint(2, 8)):
        step += choices.randint(1, 3)
        whole.add(save_checkpoint(run_dir, Progress(step=step), {}, {}, keep=keep))
        whole &= set(list_checkpoints(run_dir))
        if max(whole).name != f"step-{step:08d}":
            return f"step {step} is gone right after it was saved"
        if len(whole) > keep:
            return f"{len(whole)} kept, {keep} were asked for"
        if choices.random() < 0.4 and len(whole) > 1:
            victim = choices.choice(sorted(whole))
            os.unlink(victim / "state.json")
            whole.remove(victim)
        if choices.random() < 0.5:
            found = find_checkpoint(run_dir, set_aside=choices.random() < 0.7)
            if found != max(whole):
                return f"found {found}, newest valid is {max(whole)}"
            step = int(found.name[5:])
        if not (run_dir / "best_model").is_dir():
            return "the best model is gone"
    return None


# --- numbers that are none ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_not_saved(tmp_path, value):
    former = save_checkpoint(tmp_path, Progress(step=1), {"w": torch.zeros(3)}, {}, keep=2)
    spoiled = torch.tensor([0.0, value, 0.0])
    for weights, moments in (({"w": spoiled}, {}), ({"w": torch.zeros(3)}, {"0/w/exp_avg": spoiled})):
        with pytest.raises(UserError) as caught:
            save_checkpoint(tmp_path, Progress(step=2), weights, moments, keep=2)
        name = "w" if not moments else "0/w/exp_avg"
        assert str(caught.value) == (
            f"error: {tmp_path / 'checkpoints' / 'step-00000002'}: not saved: {name} is not finite\n\n"
            "hint: resume from the last good checkpoint with a lower --lr"
        )
        assert caught.value.code == 6
    assert list_checkpoints(tmp_path) == [former]


@pytest.mark.parametrize(
    "values",
    [
        {"step": "3"}, {"step": -1}, {"epoch": 0}, {"epoch": 1.5}, {"batch": None}, {"history": {}}, {"history": [3]},
        {"loss_sum": "x"}, {"scaler": []}, {"log_bytes": -5}, {"best_loss": []}, {"step": True},
    ],
)  # fmt: skip
def test_a_state_of_wrong_types_is_refused(tmp_path, values):
    path = save_checkpoint(tmp_path, Progress(step=1), {"w": torch.zeros(3)}, {}, keep=2)
    state = {**asdict(Progress(step=1)), **values}
    (path / "state.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        checkpoint.read_progress(path)
    assert caught.value.message.startswith(f"{path / 'state.json'}: {next(iter(values))}: found ")
    assert caught.value.code == 5
