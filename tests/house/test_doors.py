"""A folder with a door is entered through it: what the door names is there, loaded late, and nothing else is taken."""

import ast
import importlib
import subprocess
import sys

import pytest
from conftest import ROOT

WINGS = ("network", "compute", "conversion")


@pytest.mark.parametrize("wing", WINGS)
def test_every_name_of_a_door_is_there_and_no_other(wing):
    door = importlib.import_module(f"novelgpt.{wing}")
    for name in door.PLACES:
        assert getattr(door, name) is not None
    with pytest.raises(AttributeError, match=f"module 'novelgpt.{wing}' has no attribute 'nonsense'"):
        _ = door.nonsense


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_is_imported_from_outside_through_its_door_only(wing):
    door = importlib.import_module(f"novelgpt.{wing}")
    sources = [*(ROOT / "novelgpt").rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "bench").glob("*.py")]
    for path in sources:
        if path.is_relative_to(ROOT / "novelgpt" / wing):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"novelgpt.{wing}"):
                assert node.module == f"novelgpt.{wing}", f"{path}:{node.lineno}: {node.module}"
                assert {alias.name for alias in node.names} <= set(door.PLACES), f"{path}:{node.lineno}"


def test_a_config_is_read_without_torch():
    code = "import sys\nfrom novelgpt.network import read_model_config\n"
    code += "read_model_config('config/model_config_small.json')\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
