"""Checkpoints come back equal, damage of any kind falls back, and retention keeps what is needed."""

import json
import random
import resource
import shutil
from pathlib import Path

import pytest
import torch

from novelgpt.files import find_damage
from novelgpt.messages import UserError
from novelgpt.network import build_model
from novelgpt.training.checkpoint import (
    Progress,
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    optimizer_tensors,
    read_progress,
    save_checkpoint,
    training_weights,
)
from novelgpt.training.optim import build_optimizers

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


pytestmark = pytest.mark.usefixtures("no_flushing")


def save_tiny(run_dir: Path, step: int, *, keep: int = 2) -> Path:
    """Save a checkpoint of a few numbers that depend on the step."""
    weights, moments = {"w": torch.full((3,), float(step))}, {"0/w/exp_avg": torch.full((3,), step / 2)}
    return save_checkpoint(run_dir, Progress(step=step, batch=step), weights, moments, keep=keep)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_checkpoint_comes_back_equal(tiny_config, tiny_tokenizer, tmp_path, name):
    def make():
        model = build_model(tiny_config, tiny_tokenizer)
        return model, build_optimizers(model, name, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.99))

    def step(model, optimizers):
        model(torch.arange(14)[None], labels=torch.arange(14)[None]).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    model, optimizers = make()
    model.eval()
    step(model, optimizers)
    progress = Progress(3, 2, 1, 4.25, 1, [{"epoch": 1, "step": 2, "valid_loss": 4.25}], 1, 0, 77, 0.1 + 0.2, 60)
    path = save_checkpoint(tmp_path, progress, training_weights(model), optimizer_tensors(optimizers, model), keep=1)
    other, others = make()
    other.eval()
    assert load_checkpoint(path, other, others) == progress
    for _ in range(2):  # and goes on alike
        step(model, optimizers)
        step(other, others)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert other.lm_head.weight is other.transformer.wte.weight


def test_the_weights_of_another_network_are_refused(tiny_config, tiny_tokenizer, tmp_path):
    path = save_tiny(tmp_path, 1)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, build_model(tiny_config, tiny_tokenizer), [])
    assert str(caught.value) == (
        f"error: {path}: holds the weights of another network\n\n"
        "hint: use the --model_config of that run, or --resume never"
    )


def test_nothing_saved_is_nothing_found(tmp_path):
    assert find_checkpoint(tmp_path) is None
    assert list_checkpoints(tmp_path / "no") == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, empty, flip, grow, Path.unlink])
def test_a_damaged_file_sets_its_checkpoint_aside_and_the_one_before_is_used(tmp_path, capsys, name, damage):
    older, newer = save_tiny(tmp_path, 1), save_tiny(tmp_path, 2)
    damage(newer / name)
    assert find_checkpoint(tmp_path) == older
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: {newer}: set aside as step-00000002.bad: ")
    assert name in warning or name == "manifest.json"  # a changed hash in the manifest accuses the file
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000001", "step-00000002.bad"]


def test_files_of_another_step_are_noticed(tmp_path):
    older, newer = save_tiny(tmp_path, 1), save_tiny(tmp_path, 2)
    for name in FILES[:3]:
        kept = (newer / name).read_bytes()
        shutil.copy(older / name, newer / name)
        assert find_checkpoint(tmp_path, set_aside=False) == older
        (newer / name).write_bytes(kept)
    assert find_checkpoint(tmp_path) == newer


@pytest.mark.parametrize("name", FILES[:3])
def test_a_manifest_that_leaves_a_file_out_is_damage(tmp_path, capsys, name):
    older, newer = save_tiny(tmp_path, 1), save_tiny(tmp_path, 2)
    manifest = json.loads((newer / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"][name]
    (newer / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (newer / name).unlink()
    assert find_checkpoint(tmp_path) == older
    expected = f"warning: {newer}: set aside as {newer.name}.bad: manifest.json does not name {name}\n"
    assert capsys.readouterr().err == expected


def test_damage_is_only_looked_at_when_nothing_may_be_set_aside(tmp_path):
    older, newer = save_tiny(tmp_path, 1), save_tiny(tmp_path, 2)
    flip(newer / "model.safetensors")
    assert find_checkpoint(tmp_path, set_aside=False) == older
    assert newer.is_dir()


def test_a_second_damaged_checkpoint_of_the_same_step_replaces_the_first_bad_one(tmp_path):
    for _ in range(2):
        save_tiny(tmp_path, 1)
        flip(save_tiny(tmp_path, 2) / "model.safetensors")
        assert find_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1)


def test_no_whole_checkpoint_is_an_error_that_counts_them(tmp_path):
    for step in (1, 2):
        flip(save_tiny(tmp_path, step) / "model.safetensors")
    with pytest.raises(UserError) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"error: {tmp_path / 'checkpoints'}: none of 2 checkpoints is whole\n\n"
        "hint: start again with --resume never, or copy a whole checkpoint back"
    )
    assert caught.value.code == 5


def test_a_state_of_another_version_is_an_error(tmp_path):
    path = save_tiny(tmp_path, 1)
    for value in ({"step": 1, "mood": "good"}, [], 3):
        (path / "state.json").write_text(json.dumps(value), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            read_progress(path)
        assert caught.value.message.startswith(f"{path / 'state.json'}: written by another version: ")


@pytest.mark.parametrize("room", [0, 50, 300, 4000])  # bytes a file may have
def test_a_disk_that_refuses_leaves_every_older_checkpoint(tmp_path, room):
    for step in (1, 2):
        save_tiny(tmp_path, step)
    weights = {"w": torch.zeros(1000)}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(UserError) as caught:
            save_checkpoint(tmp_path, Progress(step=3), weights, {}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert caught.value.message.startswith(f"{checkpoint_path(tmp_path, 3)}: cannot be written: ")
    assert caught.value.code == 4
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000002"]
    assert find_checkpoint(tmp_path) == checkpoint_path(tmp_path, 2)


def test_a_step_saved_twice_is_the_later_one(tmp_path):
    save_tiny(tmp_path, 1)
    path = save_checkpoint(tmp_path, Progress(step=1, skipped=9), {"w": torch.ones(2)}, {}, keep=2)
    assert read_progress(path).skipped == 9
    assert find_damage(path) is None


@pytest.mark.parametrize("seed", range(25))
def test_no_history_of_saves_and_damages_removes_the_newest_whole_checkpoint(tmp_path, seed):
    choices = random.Random(seed)
    keep = choices.randint(1, 3)
    whole: set[Path] = set()
    for step in range(1, 13):
        whole.add(save_tiny(tmp_path, step, keep=keep))
        left = list_checkpoints(tmp_path)
        whole &= set(left)
        assert sorted(whole)[-1] == checkpoint_path(tmp_path, step)  # the new one is always there
        if choices.random() < 0.4 and len(whole) > 1:
            victim = choices.choice(sorted(whole))
            cut(victim / "model.safetensors")
            whole.remove(victim)
        found = find_checkpoint(tmp_path, set_aside=choices.random() < 0.5)
        assert found == max(whole)
    assert len(whole) <= keep
