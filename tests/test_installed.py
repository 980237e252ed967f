"""The console command `novelgpt`: the scripts under one name, in any folder, and the wheel that brings it."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from conftest import ROOT

from novelgpt.__main__ import main, start
from novelgpt.cli import Parser, TrainOptions
from novelgpt.files import READY_FILES, ready_file
from novelgpt.messages import as_started

SCRIPTS = {
    "clr_ctrl.py": "clean",
    "make_vocab.py": "vocab",
    "tokenize_corpus.py": "tokenize",
    "train.py": "train",
    "eval.py": "eval",
    "generate.py": "generate",
    "convert.py": "convert",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUP = PROJECT["tool"]["setuptools"]
PROGRAMS = ("/usr/bin/novelgpt", "C:/venv/Scripts/novelgpt.exe", "/lib/site-packages/novelgpt/__main__.py")


@pytest.fixture(params=PROGRAMS)
def as_command(request, monkeypatch):
    """This process was started as `novelgpt …`."""
    monkeypatch.setattr("sys.argv", [request.param])


# --- what the wheel is made of ---


def test_the_wheel_takes_every_package_template_and_ready_file():
    folders = {path.parent for path in (ROOT / "novelgpt").rglob("*.py")} | {
        ROOT / "novelgpt/pages" / name for name in ("static", "templates")
    }
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(SETUP["packages"]) == names | set(SETUP["package-dir"])
    files = {path for path in (ROOT / "novelgpt").rglob("*.*") if path.suffix != ".py"}
    files = {path for path in files if path.parent.name != "__pycache__"}
    own = {name: globs for name, globs in SETUP["package-data"].items() if name not in SETUP["package-dir"]}
    places = [(ROOT / name.replace(".", "/"), glob) for name, globs in own.items() for glob in globs]
    assert {path for place, glob in places for path in place.glob(glob)} == files
    globs = {f"{place}/{glob}" for name, place in SETUP["package-dir"].items() for glob in SETUP["package-data"][name]}
    assert globs == set(READY_FILES)


def test_the_entry_point_is_there():
    (name,) = PROJECT["project"]["scripts"]
    assert name == "novelgpt"
    assert EntryPoint(name, PROJECT["project"]["scripts"][name], "console_scripts").load() is start


# --- one name for seven scripts ---


def help_of(call, capsys) -> str:
    """Return the help that a call prints, its line ends as blanks."""
    with pytest.raises(SystemExit):
        call()
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("script", "name"), SCRIPTS.items())
def test_a_command_has_the_help_of_its_script_under_its_own_name(script, name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100000")
    module = importlib.import_module(script.removesuffix(".py"))
    monkeypatch.setattr("sys.argv", [script, "--help"])
    expected = help_of(module.main, capsys)
    monkeypatch.setattr("sys.argv", ["/usr/bin/novelgpt", name, "--help"])
    found = help_of(lambda: main([name, "--help"]), capsys)
    assert f"usage: {script} " in expected
    for other, short in SCRIPTS.items():
        expected = re.sub(rf"(torchrun --nproc_per_node=2) {other}", rf"\1 -m novelgpt {short}", expected)
        expected = expected.replace(f"python {other}", f"novelgpt {short}").replace(other, f"novelgpt {short}")
    assert found == expected


def test_without_a_command_all_are_listed(monkeypatch, capsys):
    for argv in ([], ["-h"], ["--help"]):
        monkeypatch.setattr("sys.argv", ["/usr/bin/novelgpt", *argv])
        assert start() == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines if line.startswith("  ")] == list(SCRIPTS.values())
        assert lines[2] == "  clean     Turn a novel as found into clean chapters"
        assert max(map(len, lines)) < 80


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("trian", "train"), ("clr_ctrl.py", "clean"), ("make_vocab", "vocab"), ("evaluate", "eval")],
)
def test_an_unknown_command_is_answered_with_the_nearest(word, nearest, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["/usr/bin/novelgpt", word, "--raw"])
    assert start() == 2
    said = capsys.readouterr().err
    assert said == f"error: unknown command {word.removesuffix('.py')}\n\nhint: did you mean novelgpt {nearest}?\n"


# --- what it says ---

SAID = {
    "python make_vocab.py --small": "novelgpt vocab --small",
    "clean the text first: python clr_ctrl.py": "clean the text first: novelgpt clean",
    "train.py --raw --valid_fraction 0.05": "novelgpt train --raw --valid_fraction 0.05",
    "(or add --raw to the python train.py command)": "(or add --raw to the novelgpt train command)",
    "torchrun --nproc_per_node=2 train.py --shard …": "torchrun --nproc_per_node=2 -m novelgpt train --shard …",
    "torchrun --nproc_per_node=2 -m novelgpt train": "torchrun --nproc_per_node=2 -m novelgpt train",
    "python -m novelgpt train --raw": "novelgpt train --raw",
    "清洗后的章节，由clr_ctrl.py写出": "清洗后的章节，由novelgpt clean写出",
    "old/train.py, my_train.py and eval.pyc are names of others": None,
}


@pytest.mark.parametrize("text", SAID)
def test_the_console_command_names_itself_in_what_it_says(text, as_command):
    assert as_started(text) == (SAID[text] or text)


@pytest.mark.parametrize("text", SAID)
def test_a_script_names_scripts(text, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--raw"])
    assert as_started(text) == text


def test_the_hint_of_an_error_is_a_command_that_was_installed(monkeypatch, capsys):
    for argv, hint in (
        (["convert"], "novelgpt convert model/final_model build/model"),
        (["generate", "--topp", "2"], "novelgpt generate --help"),
    ):
        monkeypatch.setattr("sys.argv", ["/usr/bin/novelgpt", *argv])
        assert start() == 2
        assert capsys.readouterr().err.endswith(f"\n\nhint: {hint}\n")


@pytest.mark.parametrize("flags", ["", "--tokenizer_path cache/vocab_small.txt --config config/train_novel.yaml"])
def test_in_an_empty_folder_only_the_novel_is_missing(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["/usr/bin/novelgpt", "train", *flags.split()])
    assert start() != 0
    said = capsys.readouterr().err
    assert "error: data/tokenized: no pieces here (manifest.json is missing)\n\nhint: novelgpt " in said
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_the_console_command_is_started_again_by_its_words(as_command):
    parser = Parser(TrainOptions, "Train.", section="train", prog="train.py")
    assert parser.command(["--raw"]) == ["-m", "novelgpt", "train", "--raw"]


def test_several_processes_start_from_the_console_command(capfd, monkeypatch):
    from novelgpt.launch import launch

    monkeypatch.chdir(ROOT)
    assert launch(["-m", "novelgpt", "train", "--help"], 2) == 0
    assert capfd.readouterr().out.count("usage: novelgpt train ") == 2


# --- the files that come with it ---


def test_a_ready_file_is_ones_own_before_it_is_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "config/demo.yaml",
        "config/model_config_small.json",
        "cache/vocab_small.txt",
        "data/sample/novel.txt",
    ):
        assert ready_file(name) == ROOT / name
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine", encoding="utf-8")
        assert ready_file(name) == name


@pytest.mark.parametrize("name", ["config/mine.yaml", "cache/vocab_novel.txt", "README.md", "novel.txt", "-", "data/"])
def test_no_other_file_is_looked_for_elsewhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ready_file(name) == name


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    (tmp_path / "ready/config").mkdir(parents=True)
    shutil.copy(ROOT / "config/demo.yaml", tmp_path / "ready/config")
    monkeypatch.setattr("novelgpt.files.HOME", tmp_path / "ready")
    monkeypatch.chdir(tmp_path)
    assert ready_file("config/demo.yaml") == tmp_path / "ready/config/demo.yaml"


@pytest.mark.parametrize("file", ["data", "cache"])
def test_a_place_that_cannot_be_written_is_an_error(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(file).write_text("a file where a folder should be", encoding="utf-8")
    argv = {"data": ["clean"], "cache": ["vocab", "--small"]}[file]
    monkeypatch.setattr("sys.argv", ["novelgpt", *argv])
    assert start() == 4
    target = {"data": "data/train.json", "cache": "cache/vocab_small.txt"}[file]
    message = f"error: {target}: cannot be written: File exists\n\nhint: free some space or choose another place than"
    assert f"{message} {file}\n" in capsys.readouterr().err


# --- the real thing ---

STORY_FLAGS = "--config config/demo.yaml --device cpu --epochs 1 --sample_length 0"


def call(words: str | list, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a command that must go well."""
    words = words.split() if isinstance(words, str) else words
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **environment}
    done = subprocess.run(words, cwd=folder, env=settings, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist of a copy of this checkout and the wheel made of it, without a network."""
    source, out = tmp_path_factory.mktemp("built") / "source", tmp_path_factory.mktemp("dist")
    others = (".git", ".venv", "shared", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*others), symlinks=True)
    (source / "cache/vocab_novel.txt").write_text("of the user", encoding="utf-8")
    (source / "data/train.json").write_text("[]", encoding="utf-8")
    call([sys.executable, "-c", f"from setuptools.build_meta import *; build_sdist({str(out)!r})"], source)
    (sdist,) = out.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    call([*pip, "--wheel-dir", str(out), str(sdist)], out)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


@pytest.mark.sweep
def test_the_wheel_holds_the_package_and_the_ready_files_and_nothing_else(built):
    sdist, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = {path for path in (ROOT / "novelgpt").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    ready = {path for pattern in READY_FILES for path in ROOT.glob(pattern)}
    names = {path.relative_to(ROOT).as_posix() for path in ours}
    assert found == names | {f"novelgpt/ready/{path.relative_to(ROOT).as_posix()}" for path in ready}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*SCRIPTS, "README_zh.md", "Makefile", "demo.sh", "tests/conftest.py", "data/sample/clean.json"} <= names
    assert not {"cache/vocab_novel.txt", "data/train.json"} & names


@pytest.mark.sweep
def test_the_installed_command_goes_from_a_novel_to_samples_in_an_empty_folder(built, tmp_path):
    # an environment that holds the wheel alone, and sees the packages of this one
    venv.create(tmp_path / "env", with_pip=False)
    bin = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    call([sys.executable, "-m", "pip", "--python", str(bin / "python"), "install", "--no-deps", "--no-index",
          str(built[1])], tmp_path)  # fmt: skip
    place = call([str(bin / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path)
    Path(place.stdout.strip(), "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    # the whole way, in a folder of its own
    home = tmp_path / "my novel"
    home.mkdir()
    shutil.copy(ROOT / "data/sample/novel.txt", home / "novel.txt")
    path = f"{bin}{os.pathsep}{os.environ['PATH']}"
    call("novelgpt clean novel.txt", home, PATH=path)
    call("novelgpt vocab", home, PATH=path)
    told = call(f"novelgpt train --raw --tokenizer_path cache/vocab_novel.txt {STORY_FLAGS}", home, PATH=path).stderr
    assert "finished 34 steps" in told
    call("novelgpt eval --text 那天夜里没有月亮。", home, PATH=path)
    flags = "--prefix 萧炎大喝一声 --nsamples 1 --length 20 --save_samples"
    written = call(f"novelgpt generate {flags}", home, PATH=path).stdout
    assert "萧炎大喝一声" in written
    call("novelgpt convert model/final_model bf16 --dtype bf16", home, PATH=path)
    assert {path.name for path in home.iterdir()} == {"novel.txt", "data", "cache", "model", "mnt", "bf16"}

    # two processes of torchrun, and a run that says how it goes on
    flags = f"{STORY_FLAGS} --tokenizer_path cache/vocab_novel.txt --output_dir both --max_hours 0.00001"
    torchrun = [str(bin / "python"), "-m", "torch.distributed.run", "--nproc_per_node=2"]
    told = call([*torchrun, "-m", "novelgpt", "train", *flags.split()], home, PATH=path).stderr
    assert f"continue with: torchrun --nproc_per_node=2 -m novelgpt train {flags}" in told
