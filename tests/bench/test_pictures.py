"""The pictures of the README are taken from a run and a model by one command."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.browser
def test_all_pictures_are_taken_and_small(browser, finished, tmp_path):
    options = finished(sample_length=5)
    (tmp_path / "story.txt").write_text("那天夜里没有月亮。一斗坐在井沿上，看着水。\n" * 30, encoding="utf-8")
    paths = {"run_dir": options.output_dir, "model_path": f"{options.output_dir}/final_model", "folder": tmp_path}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    command = [sys.executable, ROOT / "bench/pictures.py", *words, "--text_path", tmp_path / "story.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    for taken in json.loads(done.stdout.splitlines()[-1])["pictures"]:
        data = (tmp_path / taken["picture"]).read_bytes()
        assert data.startswith(b"\x89PNG") and taken["bytes"] == len(data) < 150_000
    assert {path.name for path in tmp_path.glob("*.png")} == {"training.png", "surprise.png", "studio.png"}
