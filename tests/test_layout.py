"""The shape of the house: floors one way, wings only through their doors, few ties, scripts that start at once."""

import ast
import importlib
import io
import os
import statistics
import subprocess
import sys
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "novelgpt"
# script -> its command in novelgpt/commands
COMMANDS = {"clr_ctrl.py": "clean", "make_vocab.py": "vocab", "tokenize_corpus.py": "tokenize"}
COMMANDS |= {f"{name}.py": name for name in ("train", "generate", "eval", "studio", "convert")}
PRESENT = list(COMMANDS)
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "safetensors")
START = 0.3  # seconds
MAX_FILE, MAX_FUNCTION, MAX_FOLDER = 400, 60, 20  # lines, lines, modules
LEAST_FILE = 50  # lines of a module that only one other imports
MAX_TIES, MAX_CHAIN, LEAST_COMMENTS = 16, 12, 5  # a thousand lines; modules; percent of all lines

# A wing is imported from outside through its __init__ alone.
WINGS = [
    "cli",
    "corpus.chapters",
    "corpus.containers",
    "corpus.encodings",
    "corpus.notices",
    "corpus.tokenizers",
    "corpus.pieces",
]
WINGS += ["network", "compute", "evaluation", "conversion", "pages", "studio"]
WINGS = [f"novelgpt.{wing}" for wing in WINGS]

# Imports run from a floor to its own level or a lower one.
FLOORS = {
    "languages": 0,
    "messages": 0,
    "files": 0,
    "lock": 0,
    "cli": 1,
    "corpus": 1,
    "pages": 2,
    "compute": 2,
    "network": 3,
    "launch": 3,
    "evaluation": 4,
}
FLOORS |= {"studio": 6}
FLOORS |= {"conversion": 4, "training": 5, "writing": 5, "api": 6, "commands": 7, "__main__": 8}
PROMISED = ("novelgpt.__main__", "novelgpt.corpus.decoding", "novelgpt.corpus.tokenizer")  # names that others rely on


def name_of(path: Path) -> str:
    """Return the dotted name of a module.

    >>> name_of(PACKAGE / "cli" / "__init__.py"), name_of(PACKAGE / "files.py")
    ('novelgpt.cli', 'novelgpt.files')
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path, *, at_start_only: bool = False) -> set[str]:
    """Return the dotted names that a file imports, inside functions too unless told otherwise."""
    tree = tree_of(path)
    names = set()
    for node in tree.body if at_start_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def ties_of(name: str, *, at_start_only: bool = False) -> frozenset[str]:
    """Return the modules of ours that a module imports."""
    found = imports_of(NAMES[name], at_start_only=at_start_only)
    found = {word if word in NAMES else word.rpartition(".")[0] for word in found if word.startswith("novelgpt.")}
    return frozenset(found - {name, "novelgpt"})


def wing_of(name: str) -> str | None:
    """Return the wing that a module belongs to."""
    return next((wing for wing in WINGS if name == wing or name.startswith(f"{wing}.")), None)


def floor_of(name: str) -> int:
    """Return the floor of a module."""
    return FLOORS[name.split(".")[1]]


INNER = sorted(set(NAMES) - {"novelgpt"})


@pytest.mark.parametrize("name", INNER)
def test_imports_run_down_the_floors_and_writing_never_uses_training(name):
    for other in ties_of(name):
        assert floor_of(other) <= floor_of(name), f"{name} imports {other}"
        assert not (name.startswith("novelgpt.writing") and other.startswith("novelgpt.training"))


@pytest.mark.parametrize("name", [*INNER, *PRESENT])
def test_a_wing_is_entered_through_its_door(name):
    path = NAMES.get(name, ROOT / name)
    for other in imports_of(path):
        wing = wing_of(other)
        if wing and wing != wing_of(name):
            assert other.rpartition(".")[0] == wing, f"{name} imports {other}, past the door of {wing}"
            assert other not in NAMES, f"{name} imports the room {other} and not a name of {wing}"


def test_the_face_of_the_package_loads_nothing():
    assert imports_of(PACKAGE / "__init__.py", at_start_only=True) <= {"importlib", "typing.TYPE_CHECKING"}


@cache
def depth_of(name: str) -> int:
    """Return the modules on the longest way of imports from a module on."""
    return 1 + max((depth_of(other) for other in ties_of(name)), default=0)


def test_ties_are_few_and_ways_are_short():
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in MODULES)
    ties = sum(len(ties_of(name)) for name in NAMES)
    assert 1000 * ties / lines <= MAX_TIES
    assert max(depth_of(name) for name in INNER) <= MAX_CHAIN  # a circle would be a RecursionError


def test_folders_are_small():
    rooms = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(folder): count for folder, count in rooms.items() if count > MAX_FOLDER} == {}


def test_no_small_module_serves_a_single_other():
    importers = Counter(other for name in NAMES for other in ties_of(name))
    small = [
        name
        for name, path in NAMES.items()
        if importers[name] <= 1
        and path.name != "__init__.py"
        and path.read_text(encoding="utf-8").count("\n") < LEAST_FILE
        and name not in PROMISED
        and not name.startswith("novelgpt.commands.")
    ]
    assert small == []


def test_comments_head_the_paragraphs():
    texts = [path.read_text(encoding="utf-8") for path in MODULES]
    tokens = [token for text in texts for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    comments = sum(token.type == tokenize.COMMENT for token in tokens)
    assert 100 * comments / sum(text.count("\n") for text in texts) >= LEAST_COMMENTS


def doors_with_late_names() -> list[str]:
    """Return the wings whose names are loaded when they are asked for."""
    return [wing for wing in WINGS if "PLACES" in NAMES[wing].read_text(encoding="utf-8")]


@pytest.mark.parametrize("wing", doors_with_late_names())
def test_every_name_of_a_door_is_there_and_no_other(wing):
    door = importlib.import_module(wing)
    assert all(getattr(door, name) is not None for name in door.PLACES)
    with pytest.raises(AttributeError, match=f"module '{wing}' has no attribute 'nonsense'"):
        _ = door.nonsense


def test_training_takes_only_generation_from_writing():
    names = {name for inner in INNER if inner.startswith("novelgpt.training") for name in imports_of(NAMES[inner])}
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
            for length in range(1, len(words) + 1):  # the folders on the way are loaded too
                found = NAMES.get(".".join(words[:length]))
                if found:
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
    tree = tree_of(PACKAGE / f"commands/{COMMANDS[name]}.py")
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
    tree = tree_of(path)
    assert ast.get_docstring(tree), "a module needs a docstring"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node in tree.body:
            assert ast.get_docstring(node), f"{node.name} needs a docstring"
