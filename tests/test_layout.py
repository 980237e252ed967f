"""The shape of the house: imports point one way, scripts start at once, files and functions stay small."""

import ast
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = ("clr_ctrl.py", "make_vocab.py", "tokenize_corpus.py", "train.py", "generate.py", "eval.py", "convert.py")
PRESENT = [name for name in SCRIPTS if (ROOT / name).is_file()]
PREPROCESSING = ("clr_ctrl.py", "make_vocab.py", "tokenize_corpus.py")
MODULES = sorted((ROOT / "novelgpt").rglob("*.py"))
HEAVY = ("torch", "transformers", "safetensors")
START = 0.3  # seconds
MAX_FILE, MAX_FUNCTION = 400, 60  # lines

# a module may import from its own level or a lower one; a single module of the package that is not named stands between
# the corpus and what trains and writes
LEVELS = {"messages": 0, "files": 0, "lock": 0, "cli": 0, "corpus": 1, "writing": 3}
LEVELS |= {"evaluation": 3, "training": 3, "api": 4}
BETWEEN = 2


def imports_of(path: Path, *, at_start_only: bool = False) -> set[str]:
    """Return the dotted names that a file imports, inside functions too unless told otherwise."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_start_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """Return the part of the package that a module belongs to: its folder or its own name."""
    inner = path.relative_to(ROOT / "novelgpt").parts
    return inner[0].removesuffix(".py")


def ours(names: set[str]) -> set[str]:
    """Return the parts of the package among imported names."""
    return {name.split(".")[1] for name in names if name.startswith("novelgpt.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = part_of(path)
    if part == "__init__":
        assert imports_of(path, at_start_only=True) == {"importlib"}
        return
    for other in ours(imports_of(path)) - {"__version__", part}:
        assert LEVELS.get(other, BETWEEN) <= LEVELS.get(part, BETWEEN), f"{path}: imports {other}"
        if {part, other} == {"writing", "training"}:
            allowed = path.name == "session.py" and part == "training"
            assert allowed, f"{path}: only training/session.py may import from writing"


def test_training_takes_only_generation_from_writing():
    names = imports_of(ROOT / "novelgpt" / "training" / "session.py")
    assert {name for name in names if name.startswith("novelgpt.writing")} <= {
        "novelgpt.writing.generation.generate_text"
    }


def reachable(path: Path) -> set[Path]:
    """Return the modules of ours that a file loads when it is imported, itself included."""
    seen, waiting = set(), [path]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports_of(module, at_start_only=True):
            words = name.split(".")
            for length in (len(words), len(words) - 1):
                found = ROOT.joinpath(*words[:length]).with_suffix(".py")
                if words[0] == "novelgpt" and found.is_file():
                    waiting.append(found)
    return seen


@pytest.mark.parametrize("path", sorted((ROOT / "novelgpt" / "corpus").rglob("*.py")), ids=lambda path: path.name)
def test_the_corpus_part_never_imports_torch(path):
    names = imports_of(path)
    assert not {name for name in names if name.split(".")[0] in HEAVY}
    for module in reachable(path):
        loaded = imports_of(module, at_start_only=True)
        assert not {name for name in loaded if name.split(".")[0] in HEAVY}, module


@pytest.mark.parametrize("name", PRESENT)
def test_a_script_imports_nothing_heavy_at_its_start(name):
    for module in reachable(ROOT / name):
        loaded = {imported.split(".")[0] for imported in imports_of(module, at_start_only=True)}
        assert not loaded & {*HEAVY, "tokenizers", "tensorboard"}, module


@pytest.mark.parametrize("name", PRESENT)
def test_help_starts_at_once_without_torch(name):
    code = (
        "import runpy, sys\nsys.argv = [sys.argv[1], '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'safetensors'} & set(sys.modules)\nassert not heavy, heavy"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", code, name], cwd=ROOT, capture_output=True, text=True, check=False)
        after = os.times()  # processor time: what else the machine does must not count
        children = (after.children_user - before.children_user, after.children_system - before.children_system)
        seconds.append(sum(children))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: ")
    assert statistics.median(seconds) < START, seconds


@pytest.mark.parametrize("name", PRESENT)
def test_a_script_has_a_parser_a_main_and_two_commands_in_its_docstring(name):
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"build_parser", "main"} <= functions
    lines = [line.strip() for line in ast.get_docstring(tree).split("\n")]
    commands = [line for line in lines if line.startswith(("python ", "torchrun ")) and name in line]
    assert len(commands) >= 2


@pytest.mark.parametrize("name", PRESENT)
def test_every_option_has_a_help_text(name):
    done = subprocess.run(
        [sys.executable, name, "--print_config"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.split("\n")
    assert done.returncode == 0 and len(lines) > 4
    assert all(len(line) > 10 for line in lines if line.startswith("  # ")), lines


SOURCES = [*MODULES, *(ROOT / name for name in PRESENT)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_functions_and_docstrings_are_as_the_house_wants_them(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_FILE
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module needs a docstring"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node in tree.body:
            assert ast.get_docstring(node), f"{node.name} needs a docstring"
