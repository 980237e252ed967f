"""Commands that messages print: each names a script that is there, and options and values that it takes."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT
from messages_in_code import literals

from novelgpt.messages import COMMANDS

COMMAND = re.compile(rf"python ({'|'.join(map(re.escape, COMMANDS))})((?: [^;,，()\n]+)?)")
FLAG = re.compile(r"(?<!\S)--(?:no-)?([a-z]\w*)")
# what is no option of ours: of pip, hf, torchrun and soffice, and what stands before a switch that is off
FOREIGN = {"local", "index", "nproc_per_node", "headless", "convert", "no"}


def printed_texts() -> dict[str, str]:
    """Map every text of the package that is not a docstring, with {} for each value, to where it stands."""
    found = {}
    for path in sorted((ROOT / "novelgpt").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Expr):  # a docstring, or what a call is given, which is looked at by itself
                continue
            for child in ast.iter_child_nodes(node):
                if isinstance(child, (ast.JoinedStr, ast.Constant)) and not isinstance(node, ast.JoinedStr):
                    found |= dict.fromkeys(literals(child), f"{path.relative_to(ROOT)}:{child.lineno}")
    return found


TEXTS = printed_texts()
MATCHES = [(match, place) for text, place in TEXTS.items() for match in COMMAND.finditer(text)]
FOUND = sorted({(match[1], match[2].strip(), place) for match, place in MATCHES})


def parser_of(script: str):
    return importlib.import_module(Path(script).stem).build_parser()


def test_messages_do_print_commands():
    assert {script for script, *_ in FOUND} >= {"clr_ctrl.py", "make_vocab.py", "tokenize_corpus.py", "train.py"}


@pytest.mark.parametrize(("script", "words", "place"), FOUND)
def test_a_printed_command_has_options_of_its_script(script, words, place):
    known = {*parser_of(script).entries, "config", "help"}
    assert set(FLAG.findall(words)) <= known, place


@pytest.mark.parametrize(("script", "words", "place"), [entry for entry in FOUND if "{}" not in entry[1]])
def test_a_printed_command_without_a_gap_is_one_that_its_script_takes(script, words, place):
    if words != "--help":
        parser_of(script).parse_options(shlex.split(words))


def test_every_option_that_a_message_names_is_one_of_some_script():
    known = {name for script in COMMANDS for name in parser_of(script).entries} | {
        "config",
        "print_config",
        "debug",
        "lang",
        "help",
    }
    named = {(name, place) for text, place in TEXTS.items() if "python -m" not in text for name in FLAG.findall(text)}
    assert {entry for entry in named if entry[0] not in known | FOREIGN} == set()
