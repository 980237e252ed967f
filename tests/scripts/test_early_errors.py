"""What is missing is said at once: the error comes before torch is loaded, in a fraction of a second."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

SECONDS = 0.3  # of the processor, the start of Python included
CODE = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stop:
    status = stop.code
heavy = {"torch", "transformers", "safetensors"} & set(sys.modules)
assert not heavy, heavy
sys.exit(status)
"""
PIECES = "data/tokenized: no pieces here (manifest.json is missing)"
CASES = {  # command -> status, message, hint
    "train.py --raw": (
        3, "data/train.json: no such file, expected the chapters of a novel", "python clr_ctrl.py NOVEL.txt",
    ),
    "train.py": (5, PIECES, "python clr_ctrl.py NOVEL.txt\nand then: python train.py --raw"),
    "train.py --raw --book 水浒": (
        3, "books/水浒/train.json: no such file, expected the chapters of a novel",
        "did you mean --book '水浒传'?\na new book begins with: python clr_ctrl.py NOVEL.txt --book '水浒'",
    ),
    "train.py --book 水浒传": (
        5, "books/水浒传/tokenized: no pieces here (manifest.json is missing)",
        "python train.py --book '水浒传' --raw",
    ),
    "train.py --model_config no.json": (
        2, "no.json: cannot be read: No such file or directory",
        "restore no.json or write it again with the command that made it",
    ),
    "train.py --stride 2000": (
        2, "--stride 2000: longer than the window of 1024 tokens, so text would be skipped", "--stride 512",
    ),
    "train.py --raw --tokenizer_path no.txt": (3, "no.txt: cannot be read: No such file or directory", None),
    "train.py --train_file no.txt": (3, "no.txt: cannot be read: No such file or directory", None),
    "train.py --raw --pretrained_model no": (
        5, "no: no such folder, expected a model folder", "give a folder such as model/final_model",
    ),
    "train.py --pretrained_model books/水浒传/model/final_model": (
        5, "books/水浒传/model/final_model: no such folder, expected a model folder",
        "--pretrained_model books/水浒传/model/best_model",
    ),
    "eval.py": (5, "model/final_model: no such folder, expected a model folder", "python train.py --raw"),
    "eval.py --book 水浒传": (
        5, "books/水浒传/model/final_model: no such folder, expected a model folder",
        "--model_path books/水浒传/model/best_model",
    ),
    "convert.py model/final_model out": (
        5, "model/final_model: no such folder, expected a model folder", "python train.py --raw",
    ),
    "convert.py books/水浒传/model/final_model out": (
        5, "books/水浒传/model/final_model: no such folder, expected a model folder", "books/水浒传/model/best_model",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files of the checkout and a book that is cleaned and in training."""
    folder = tmp_path_factory.mktemp("early")
    for name in ("config", "cache"):
        (folder / name).symlink_to(ROOT / name)
    book = folder / "books" / "水浒传"
    (book / "model" / "best_model").mkdir(parents=True)
    (book / "model" / "best_model" / "config.json").touch()
    (book / "train.json").touch()
    return folder


@pytest.mark.parametrize("command", CASES)
def test_what_is_missing_is_said_before_torch_is_loaded(command, place):
    script, *words = command.split()
    status, message, hint = CASES[command]
    seconds = []
    while not seconds or (min(seconds) > SECONDS and len(seconds) < 3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", CODE, ROOT / script, *words], cwd=place, capture_output=True, text=True, check=False
        )
        after = os.times()
        seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    said = done.stderr.replace(f"{ROOT}{os.sep}", "")
    assert said.startswith(f"error: {message}\n\nhint: {hint or ''}"), said
    assert hint is None or said.endswith(f"{hint}\n")
    assert min(seconds) <= SECONDS
    assert not (place / "model").exists()
