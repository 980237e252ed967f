"""The notebook: headings in two languages, and cells that run from the first to the last in an empty folder."""

import json
import os
import re
import subprocess

import pytest
from conftest import ROOT
from test_readme import KNOWN, TINY

NOTEBOOK = json.loads((ROOT / "notebooks/novelgpt.ipynb").read_text(encoding="utf-8"))
# what a notebook has and Python has not: a line after "!" is a command, with values in braces; pages are shown
NOTEBOOK_WORDS = """
import subprocess, sys, types

def shell(command):
    subprocess.run(command, shell=True, check=True)

sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython.display"] = types.SimpleNamespace(HTML=print)
"""


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def test_it_is_a_clean_notebook_without_results_or_places_of_a_machine():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    assert not [cell for cell in NOTEBOOK["cells"] if cell.get("outputs") or cell.get("execution_count")]
    assert not re.search(r"[\"' ](/|[A-Z]:)\w", "".join(cells("code")))


def test_every_text_is_in_chinese_and_in_english():
    for text in cells("markdown"):
        for line in re.findall("^#.*", text, re.MULTILINE):
            assert re.search(r"[一-鿿].* / .*[a-z]", line)
        paragraphs = text.split("\n\n")[1:] if text.startswith("#") else text.split("\n\n")
        languages = [bool(re.search("[，。：；]", paragraph)) for paragraph in paragraphs]
        assert languages == [True, False]


def test_its_flags_exist():
    assert set(re.findall(r"--[a-z_]+", "".join(cells("code") + cells("markdown")))) <= KNOWN


@pytest.mark.sweep
def test_its_cells_run_one_after_the_other_in_an_empty_folder(tmp_path, warm_python):
    # the command as it is installed, and a tiny network in the place of the demo's
    (tmp_path / "bin").mkdir()
    script = "import sys\nsys.path.insert(0, {!r})\nfrom novelgpt.__main__ import start\nsys.exit(start())\n"
    (tmp_path / "bin/novelgpt.py").write_text(script.format(str(ROOT)), encoding="utf-8")
    command = tmp_path / "bin/novelgpt"
    command.write_text(f'#!/bin/sh\nexec {warm_python} {command}.py "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    for name in ("config/demo.yaml", "config/model_config_demo.json"):
        (home / name).write_text(TINY[name], encoding="utf-8")

    lines = "\n".join([NOTEBOOK_WORDS, *cells("code")]).splitlines()
    program = "\n".join(f"shell(f{line[1:]!r})" if line.startswith("!") else line for line in lines)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    words = [warm_python, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{program}"]
    done = subprocess.run(words, cwd=home, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished 68 steps" in done.stderr
    assert done.stdout.count("<iframe srcdoc=") == 2
    assert done.stdout.count("那天夜里没有月亮。") >= 3
    made = {path.name for path in home.iterdir()}
    assert made == {"config", "data", "cache", "model", "report.html", "surprise.html", "my_model.zip"}
