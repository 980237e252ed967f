"""Files from strangers: none runs code, none leaves its folder, each is refused with a message or is harmless."""

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import clr_ctrl
import eval as eval_script
import generate
import make_vocab
import tokenize_corpus
import train as train_script
from novelgpt.cli import run
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.corpus.tokenizers.base import save_vocabulary
from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
from novelgpt.files import sha256_of, write_json
from novelgpt.network import build_model, save_model
from novelgpt.training.checkpoint import Progress, save_checkpoint
from reliability.harness import STORY

SECONDS = 20.0  # a refusal takes no longer, even on a busy machine
CONFIG = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 64}


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Do not wait for the disk: no power fails in a test."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


class Canary:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Place:
    """A folder with a small model, a corpus, pieces and a run, made again for each artefact."""

    def __init__(self, folder: Path):
        self.folder, self.model, self.canary = folder, folder / "model", folder / "canary"
        folder.mkdir()
        write_json(folder / "train.json", STORY)
        save_vocabulary(folder / "vocab.txt", build_vocabulary(STORY))
        write_json(folder / "config.json", CONFIG)
        tokenizer = load_tokenizer(folder / "vocab.txt")
        save_model(build_model(CONFIG, tokenizer), tokenizer, self.model)

    def pickle(self, path: Path) -> None:
        """Write the canary's pickle; torch.save writes one without this file importing the module."""
        torch.save({"transformer.wte.weight": Canary(self.canary)}, path, _use_new_zipfile_serialization=False)

    def unlisted(self) -> Path:
        """Return the model folder without its manifest, as strangers' folders are."""
        (self.model / "manifest.json").unlink()
        return self.model

    def edit(self, path: Path, **changes) -> None:
        """Change entries of a JSON file."""
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})

    def listed(self) -> None:
        """Make the manifest agree with whatever the model folder now holds."""
        entries = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in self.model.iterdir()
            if path.name != "manifest.json"
        }
        write_json(self.model / "manifest.json", {"files": entries})

    def generate(self) -> int:
        """Write a few tokens with the model."""
        return run(generate.main, [f"--model_path={self.model}", "--length=4", "--nsamples=1", "--device=cpu"])

    def train(self, *more: str) -> int:
        """Train one epoch on the pieces."""
        paths = {
            "model_config": "config.json", "tokenizer_path": "vocab.txt", "tokenized_data_path": "pieces",
            "raw_data_path": "train.json", "output_dir": "run",
        }  # fmt: skip
        words = [f"--{name}={self.folder / path}" for name, path in paths.items()]
        words += "--epochs=1 --batch_size=8 --stride=32 --device=cpu --num_pieces=2 --sample_length=0".split()
        return run(train_script.main, [*words, *more])


def safetensors_of(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file; length lies about the header when given."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def weights_pickle(place: Place) -> int:
    place.pickle(place.unlisted() / "model.safetensors")
    return place.generate()


def old_weights_pickle(place: Place) -> int:
    place.unlisted()
    os.unlink(place.model / "model.safetensors")
    place.pickle(place.model / "pytorch_model.bin")
    return place.generate()


def listed_old_weights_pickle(place: Place) -> int:
    os.unlink(place.model / "model.safetensors")
    place.pickle(place.model / "pytorch_model.bin")
    place.listed()
    return place.generate()


def config_pickle(place: Place) -> int:
    place.pickle(place.unlisted() / "config.json")
    return place.generate()


def vocabulary_pickle(place: Place) -> int:
    place.pickle(place.unlisted() / "vocab.txt")
    return place.generate()


def piece_pickle(place: Place) -> int:
    assert place.train("--raw") == 0
    shutil.rmtree(place.folder / "run")
    place.pickle(place.folder / "pieces" / "tokenized_train_0.npy")
    return place.train()


def piece_of_objects(place: Place) -> int:
    assert place.train("--raw") == 0
    shutil.rmtree(place.folder / "run")
    path = place.folder / "pieces" / "tokenized_train_0.npy"
    np.save(path, np.array([Canary(place.canary)], dtype=object), allow_pickle=True)
    manifest = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
    entry = next(entry for entry in manifest["pieces"] if entry["name"] == path.name)
    entry |= {"sha256": sha256_of(path), "tokens": 1}
    write_json(path.parent / "manifest.json", manifest)
    return place.train()


def checkpoint_with(place: Place, change: Callable[[Path], None]) -> int:
    """Go on from a checkpoint that a stranger changed, manifest and all."""
    assert place.train("--raw", "--max_hours=0.0000001") == 0
    (path,) = (place.folder / "run" / "checkpoints").iterdir()
    change(path)
    files = [entry for entry in path.iterdir() if entry.name != "manifest.json" and entry.is_file()]
    entries = {entry.name: {"bytes": entry.stat().st_size, "sha256": sha256_of(entry)} for entry in files}
    place.edit(path / "manifest.json", files=entries)
    return place.train()


def optimizer_pickle(place: Place) -> int:
    return checkpoint_with(place, lambda path: place.pickle(path / "optimizer.safetensors"))


def optimizer_of_other_names(place: Place) -> int:
    header = b'{"x/y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return checkpoint_with(
        place, lambda path: (path / "optimizer.safetensors").write_bytes(safetensors_of(header, b"\0" * 4))
    )


def state_pickle(place: Place) -> int:
    return checkpoint_with(place, lambda path: place.pickle(path / "state.json"))


def state_of_nonsense(place: Place) -> int:
    return checkpoint_with(place, lambda path: place.edit(path / "state.json", history=[{"epoch": {}}], epoch="x"))


def checkpoint_beyond_its_folder(place: Place) -> int:
    """A manifest that names files outside: the checkpoint is damaged, so nothing whole is left."""
    former = save_checkpoint(place.folder / "run", Progress(step=1), {"w": torch.zeros(2)}, {}, keep=1)
    assert place.train("--raw", "--resume=never", "--max_hours=0.0000001") == 0
    (path,) = (place.folder / "run" / "checkpoints").iterdir()
    shutil.copytree(former if former.exists() else path, place.folder / "outside")
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        os.unlink(path / name)
        (path / name).symlink_to(place.folder / "outside" / name)
    return place.train()


def corpus_pickle(place: Place) -> int:
    place.pickle(place.folder / "train.json")
    return run(
        tokenize_corpus.main,
        [f"--raw_data_path={place.folder / 'train.json'}", f"--tokenized_data_path={place.folder / 'pieces'}"],
    )


def novel_pickle(place: Place) -> int:
    place.pickle(place.folder / "novel.json")
    return run(clr_ctrl.main, [str(place.folder / "novel.json"), f"--output={place.folder / 'clean.json'}"])


def yaml_with_code(place: Place) -> int:
    text = f"train:\n  epochs: !!python/object/apply:os.mkdir ['{place.canary}']\n"
    (place.folder / "options.yaml").write_text(text, encoding="utf-8")
    return place.train(f"--config={place.folder / 'options.yaml'}")


def config_that_names_code(place: Place) -> int:
    (place.unlisted() / "evil.py").write_text(f"import os\nos.mkdir({str(place.canary)!r})\n", encoding="utf-8")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    place.edit(place.model / "config.json", auto_map=auto_map)
    return place.generate()


def config_that_trusts(place: Place) -> int:
    place.edit(place.unlisted() / "config.json", **{"trust_remote" + "_code": True})
    return place.generate()


def config_with_attention_from_afar(place: Place) -> int:
    place.edit(place.unlisted() / "config.json", _attn_implementation_internal="stranger/kernel")
    return place.generate()


def tokenizer_that_names_code(place: Place) -> int:
    """Ours is read from vocab.txt alone, so this is harmless and the text is written."""
    (place.unlisted() / "evil.py").write_text(f"import os\nos.mkdir({str(place.canary)!r})\n", encoding="utf-8")
    place.edit(place.model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    return place.generate()


def safetensors_of_a_huge_header(place: Place) -> int:
    (place.unlisted() / "model.safetensors").write_bytes(safetensors_of(b"{}", length=1 << 60))
    return place.generate()


def safetensors_that_overlap(place: Place) -> int:
    header = json.dumps({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in ("a", "b")}).encode()
    (place.unlisted() / "model.safetensors").write_bytes(safetensors_of(header, b"\0" * 16))
    return place.generate()


def safetensors_of_a_huge_shape(place: Place) -> int:
    header = b'{"transformer.wte.weight":{"dtype":"F32","shape":[1000000000000000000],"data_offsets":[0,16]}}'
    (place.unlisted() / "model.safetensors").write_bytes(safetensors_of(header, b"\0" * 16))
    return place.generate()


def safetensors_cut(place: Place) -> int:
    path = place.unlisted() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    return place.generate()


def safetensors_of_deep_json(place: Place) -> int:
    (place.unlisted() / "model.safetensors").write_bytes(safetensors_of(b"[" * 100_000))
    return place.generate()


def config_of_deep_json(place: Place) -> int:
    (place.unlisted() / "config.json").write_bytes(b'{"n_layer":' * 100_000)
    return place.generate()


def config_of_a_huge_number(place: Place) -> int:
    (place.unlisted() / "config.json").write_bytes(b'{"n_layer": ' + b"9" * 5000 + b"}")
    return place.generate()


def config_of_a_huge_network(place: Place) -> int:
    place.edit(place.unlisted() / "config.json", n_layer=200, n_embd=16_384, n_inner=65_536)
    return place.generate()


def config_beyond_the_memory(place: Place) -> int:
    place.edit(place.folder / "config.json", n_layer=200, n_embd=16_384, n_head=64, n_inner=65_536)
    return place.train("--raw")


def config_of_nan(place: Place) -> int:
    text = (place.unlisted() / "config.json").read_text(encoding="utf-8")
    (place.model / "config.json").write_text(text.rstrip("\n}") + ', "resid_pdrop": NaN}', encoding="utf-8")
    return place.generate()


def manifest_beyond_its_folder(place: Place) -> int:
    entry = {"bytes": 1, "sha256": "0" * 64}
    write_json(place.model / "manifest.json", {"files": {"../../etc/passwd": entry, "/etc/passwd": entry}})
    return place.generate()


def corpus_of_deep_json(place: Place) -> int:
    (place.folder / "train.json").write_bytes(b"[" * 100_000)
    return run(make_vocab.main, [f"--raw_data_path={place.folder / 'train.json'}"])


def corpus_of_a_huge_number(place: Place) -> int:
    (place.folder / "train.json").write_bytes(b"[" + b"9" * 5000 + b"]")
    return run(make_vocab.main, [f"--raw_data_path={place.folder / 'train.json'}"])


def vocabulary_of_a_gigabyte(place: Place) -> int:
    with open(place.unlisted() / "vocab.txt", "wb") as file:
        file.truncate(1 << 30)  # sparse
    return place.generate()


def vocabulary_of_escapes(place: Place) -> int:
    text = (place.folder / "vocab.txt").read_text(encoding="utf-8")
    (place.folder / "vocab.txt").write_text(text + "\x1b[2J\n\x1b[2J\n", encoding="utf-8")
    return place.train("--raw")


def name_of_escapes(place: Place) -> int:
    return run(eval_script.main, [f"--model_path={place.folder}/\x1b]0;owned\x07", "--text=井"])


HARMLESS = (tokenizer_that_names_code,)
ARTEFACTS = (
    weights_pickle, old_weights_pickle, listed_old_weights_pickle, config_pickle, vocabulary_pickle, piece_pickle,
    piece_of_objects, optimizer_pickle, optimizer_of_other_names, state_pickle, state_of_nonsense,
    checkpoint_beyond_its_folder, corpus_pickle, novel_pickle, yaml_with_code, config_that_names_code,
    config_that_trusts, config_with_attention_from_afar, *HARMLESS, safetensors_of_a_huge_header,
    safetensors_that_overlap, safetensors_of_a_huge_shape, safetensors_cut, safetensors_of_deep_json,
    config_of_deep_json, config_of_a_huge_number, config_of_a_huge_network, config_beyond_the_memory, config_of_nan,
    manifest_beyond_its_folder, corpus_of_deep_json, corpus_of_a_huge_number, vocabulary_of_a_gigabyte,
    vocabulary_of_escapes, name_of_escapes,
)  # fmt: skip


def test_hostile_artefacts(tmp_path, capsys, ledger):
    faults = []
    for artefact in ARTEFACTS:
        place = Place(tmp_path / artefact.__name__)
        began = time.monotonic()
        try:
            status = artefact(place)
        except Exception as problem:  # what a user would see as a traceback
            status = repr(problem)
        said = "".join(capsys.readouterr())
        if place.canary.exists():
            faults.append(f"{artefact.__name__}: the canary fired")
        if status not in ((0,) if artefact in HARMLESS else (2, 3, 4, 5)) or "Traceback" in said:
            faults.append(f"{artefact.__name__}: exit {status}: {said[-500:]}")
        if "\x1b" in said:
            faults.append(f"{artefact.__name__}: an escape reached the terminal")
        if time.monotonic() - began > SECONDS:
            faults.append(f"{artefact.__name__}: took {time.monotonic() - began:.0f} s")
    ledger(
        "Hostile files: the canary never fires, a message and no traceback, no escape printed", faults, len(ARTEFACTS)
    )


def test_the_canary_does_fire_where_pickle_is_read(tmp_path):
    place = Place(tmp_path / "place")
    place.pickle(tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert place.canary.exists()
