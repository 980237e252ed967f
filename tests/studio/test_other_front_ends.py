"""docs/other_front_ends.md: its blocks run against a server as printed, its tables name what there is."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from fake_engine import FakeEngine
from serving import serving

from novelgpt.studio.dialects import routes
from novelgpt.studio.dialects.settings import NAMES, SEED, STOPS, WORDS

PAGE = (ROOT / "docs/other_front_ends.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address():
    """The address of a server."""
    with serving(FakeEngine()) as address:
        yield address


def run(words: list[str], block: str, address: str) -> str:
    """Run a block with the address of the server in it; returns what it prints."""
    block = block.replace("http://127.0.0.1:PORT", address)
    return subprocess.run([*words, block], capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_blocks_of_python_run_as_printed(address):
    stream, echo = [body for language, body in BLOCKS if language == "python"]
    # 50 tokens are three sentences of 13 tokens and 10 characters, and 11 tokens
    assert run([sys.executable, "-c"], stream, address) == "水又少了一寸。𠮷说。" * 3 + "水又少了一寸。𠮷"
    told = run([sys.executable, "-c"], echo, address).splitlines()
    assert told[0] == "那 None" and told[1].startswith("天 -0.2") and len(told) == len("那天夜里没有月亮。")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_block_of_curl_runs_as_printed(address):
    (block,) = [body for language, body in BLOCKS if language == "bash" and body.startswith("curl ")]
    told = json.loads(run(["bash", "-c"], f"{block.strip()} --silent --noproxy '*'", address))
    assert told["usage"] == {"prompt_tokens": 9, "completion_tokens": 50, "total_tokens": 59}


def test_every_route_is_in_the_table_and_no_other():
    table = re.search(r"^## What the routes are\n(.*?)^A chat", PAGE, re.MULTILINE | re.DOTALL)[1]
    named = {name if name.startswith("/") else f"/api/extra/{name}" for name in re.findall(r"`([^`]+)`", table)}
    paths = {route.path for route in routes(FakeEngine())}
    assert named - {"/api/extra/"} == paths - {"/completions", "/v1/models/{name:path}"}


def test_every_name_of_a_sampler_is_in_the_table():
    names = [*(name for names in NAMES.values() for name in names), *SEED, *STOPS, *WORDS]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
