"""The CPU as the truth: a run there and the same on pretended devices."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import STORY
from helpers import read_log

from novelgpt import api
from novelgpt.corpus.pieces import write_pieces
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.training.checkpoint import list_checkpoints, read_progress

SAME = 1e-5  # of a loss: the CPU's parts and plain operators sum in different orders


def losses_of(folder) -> list[float]:
    """Return all losses of a log, of training and held out."""
    return [record.get("loss", record.get("valid_loss")) for record in read_log(folder)]


def train_beside_cpu(pretended, options, device: str, *, kind: str = "cuda", **changes) -> dict:
    """Train on the CPU and on pretended devices, compare all losses, and return what the latter counted."""
    elsewhere = replace(options, device=device, output_dir=f"{options.output_dir}-there", **changes)
    assert api.train(options).finished
    done = pretended.run("train", options=asdict(elsewhere), kind=kind)
    assert done["status"] == 0 and done["finished"]
    expected = losses_of(options.output_path)
    assert len(expected) == 15  # 12 steps, and before each epoch and at the end what is held out
    assert losses_of(elsewhere.output_path) == pytest.approx(expected, rel=SAME)
    return done


def hold_nothing_out(options) -> None:
    """Write the pieces of a run again, all of them to train on."""
    tokenizer = load_tokenizer(options.tokenizer_path)
    facts = {"path": "story.json", "sha256": "0" * 64}
    vocabulary = {"path": options.tokenizer_path, "sha256": tokenizer.fingerprint}
    write_pieces(STORY * 3, tokenizer, options.tokenized_data_path, num_pieces=3, valid_fraction=0.0, source=facts,
                 vocabulary=vocabulary)  # fmt: skip


def samples_of(folder) -> list[str]:
    """Return the samples of a run's epochs."""
    history = read_progress(list_checkpoints(Path(folder))[-1]).history
    return [entry["sample"] for entry in history if "sample" in entry]
