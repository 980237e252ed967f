"""The whole way on a machine that has none of what only POSIX has; the rules are those of as_windows.py."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import process as futures
from pathlib import Path

import pytest
from conftest import ROOT

from novelgpt.corpus import books, records
from novelgpt.files import read_json, write_json

pytestmark = pytest.mark.skipif(sys.platform not in ("linux", "win32"), reason="as_windows.py looks into /proc")
SCRIPTS = ("clr_ctrl.py", "make_vocab.py", "tokenize_corpus.py", "train.py", "eval.py", "generate.py", "convert.py")
TINY = {"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 32}
NOVEL, MODEL = "我的 小说.txt", "模型 一"
TRAIN = ["train.py", "--raw", "--tokenizer_path", "词表.txt", "--model_config", "tiny.json", "--output_dir", MODEL]
TRAIN += ["--epochs", "3", "--batch_size", "64", "--stride", "32", "--device", "cpu", "--num_pieces", "3"]
TRAIN += ["--sample_length", "5", "--save_steps", "2", "--log_step", "2", "--save_total_limit", "1"]
MODEL_PATH = ["--model_path", f"{MODEL}/final_model"]
GENERATE = ["generate.py", *MODEL_PATH, "--prefix", "那天夜里", "--length", "8", "--nsamples", "2", "--seed", "1"]
GENERATE += ["--device", "cpu", "--save_samples", "--save_samples_path", "样本 集"]
WAY = [
    ["clr_ctrl.py", NOVEL, "--report", "报告.html"],
    ["make_vocab.py", "--vocab_file", "词表.txt"],
    ["tokenize_corpus.py", "--tokenizer_path", "词表.txt", "--num_pieces", "3"],
    TRAIN,
    [*TRAIN, "--resume", "never"],  # the first run steps aside
    [*TRAIN, "--epochs", "4", "--allow_change", "epochs"],  # resumed from a checkpoint that is pruned then
    ["eval.py", *MODEL_PATH, "--device", "cpu"],
    GENERATE,
    GENERATE,  # the first samples step aside
    ["convert.py", f"{MODEL}/final_model", "半 精度", "--dtype", "fp16"],
    ["convert.py", f"{MODEL}/final_model", "半 精度", "--dtype", "bf16"],  # replaced
]


def walk(folder: Path, python: Path, way: list[list[str]]) -> subprocess.CompletedProcess:
    """Run scripts in a folder as Windows would, their output in GBK."""
    environment = {**os.environ, "PYTHONIOENCODING": "gbk", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [python, ROOT / "tests/as_windows.py", json.dumps(way)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout in a folder whose name has Chinese characters and spaces, with a short novel."""
    folder = tmp_path_factory.mktemp("win") / "桌面 文件夹" / "novel gpt"
    folder.mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "config", folder / "config")
    if os.name == "nt":  # where links need rights
        shutil.copytree(ROOT / "novelgpt", folder / "novelgpt")
    else:
        (folder / "novelgpt").symlink_to(ROOT / "novelgpt")  # with the compiled code of its __pycache__
    text = (ROOT / "data/sample/novel.txt").read_bytes().decode("gb18030")
    (folder / NOVEL).write_bytes(text[:9000].encode("gb18030"))
    write_json(folder / "tiny.json", TINY)
    return folder


@pytest.fixture(scope="module")
def walked(checkout, warm_python) -> tuple[Path, str, str]:
    """The checkout after the whole way, and what was said on stdout and stderr."""
    done = walk(checkout, warm_python, WAY)
    out, err = done.stdout.decode("gbk"), done.stderr.decode("gbk")
    assert done.returncode == 0, err
    return checkout, out, err


@pytest.mark.sweep
def test_the_whole_way_leaves_what_it_leaves_elsewhere(walked):
    folder, out, err = walked
    names = "data/train.json 报告.html 词表.txt data/tokenized/manifest.json".split()
    names += [f"{MODEL}/final_model", f"{MODEL}/best_model", f"{MODEL}.1/final_model"]
    for name in (*names, "样本 集/samples.txt", "样本 集/samples.1.txt"):
        assert (folder / name).exists(), name
    assert read_json(folder / "半 精度/manifest.json")["dtype"] == "bf16"
    assert "Traceback" not in err and out.count("SAMPLE 1") == 2


def test_nothing_half_written_is_left(walked):
    folder = walked[0]
    hidden = [path for path in folder.rglob(".*") if path.name != ".lock"]
    assert hidden == []
    assert len(list((folder / MODEL / "checkpoints").iterdir())) == 1  # --save_total_limit 1


def test_what_is_said_is_readable_in_gbk(walked):
    _, out, err = walked
    said = err + out.split("=====")[0]  # not what the model wrote
    assert NOVEL in said and MODEL in said
    assert not re.search(r"\\[ux][0-9a-f]{2}|\ufffd", said)


def test_no_pool_has_more_processes_than_windows_waits_for():
    assert books.MAX_PROCESSES == records.MAX_PROCESSES == futures._MAX_WINDOWS_WORKERS
