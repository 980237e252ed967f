"""What the tests share: the real novels where they are, a tiny network, a tiny vocabulary, a tiny piece set."""

import functools
import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("novelgpt", deadline=None)  # a busy machine stands still for a while
hypothesis.settings.load_profile("novelgpt")
os.environ["LANGUAGE"] = "en"  # messages are compared as they stand in the code, whoever runs the tests
ROOT = Path(__file__).resolve().parent.parent
# Five public-domain novels, each in the encoding it is found in. Nothing is downloaded: whoever has them says where.
CORPORA = Path(os.environ.get("NOVELGPT_CORPORA") or ROOT.parent / "shared" / "corpora")
NOVELS = {
    "chunfeng.utf8bom.txt": "utf-8-sig",
    "hongloumeng.gbk.txt": "gb18030",
    "qijian.big5.txt": "cp950",
    "sanguo.utf8.txt": "utf-8",
    "xiyouji.utf16le.txt": "utf-16",
}
NO_NOVELS = f"set NOVELGPT_CORPORA to a folder with the five public-domain novels {', '.join(NOVELS)}"
needs_novels = pytest.mark.skipif(not all((CORPORA / name).is_file() for name in NOVELS), reason=NO_NOVELS)
TINY = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 16, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
STORY = [
    "第一章 井\n乔一斗坐在井边，数着水里的星星。\n“水又少了一寸。”他说。",
    "第二章 剑\n闻人雀的剑只有半截。\n“半截也够用。”她说……",
    "第三章 潮\n水从井里涨上来，漫过了门槛——谁也没有说话。",
]
WORDS = "".join(STORY).replace("\n", "")
RECORDS = [f"{WORDS[7 * n : 7 * n + 3 + 5 * (n % 6)]}[TIL]{WORDS[n : n + 1 + n % 4]}" for n in range(13)]
BLOCK = 20  # tokens a row; some of the records are longer
LOCAL = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", None, socket.gethostname(), socket.getfqdn()}


def refuse_network(event: str, arguments: tuple) -> None:
    """Refuse every connection that would leave this machine: no test may need the network, and no file may reach it."""
    if event in ("socket.connect", "socket.sendto"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None  # a path is a socket of this machine
    elif event == "socket.getaddrinfo":
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
    else:
        return
    if host not in LOCAL and not str(host).startswith("127."):
        raise RuntimeError(f"a test wants to reach {host!r}")


sys.addaudithook(refuse_network)


@pytest.fixture
def pretrained(tiny_config, tiny_tokenizer, tmp_path) -> Path:
    """A model folder of ours to start from."""
    from novelgpt.network import build_model, save_model

    save_model(build_model(tiny_config, tiny_tokenizer, seed=3), tiny_tokenizer, tmp_path / "pretrained")
    return tmp_path / "pretrained"


@pytest.fixture(scope="session")
def warm_python() -> Iterator[Path]:
    """A `python` that starts in a moment, see warm.py; sys.executable where the system has no fork."""
    if not hasattr(os, "fork"):
        yield Path(sys.executable)
        return
    script = Path(__file__).with_name("warm.py")
    with tempfile.TemporaryDirectory() as folder:  # a short path, as a socket wants it
        shim, address = Path(folder, "python"), str(Path(folder, "socket"))
        words = map(shlex.quote, (sys.executable, "-I", "-S", str(script), address))
        shim.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n', encoding="utf-8")
        shim.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen([sys.executable, script, "serve", address], stdout=subprocess.PIPE, env=environment)
        assert server.stdout.readline() == b"ready\n"
        yield shim
        server.kill()
        server.communicate()


@pytest.fixture
def no_flushing(monkeypatch):
    """Do not wait for the disk: no power fails in a test."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


def read_novel(name: str) -> str:
    """Return a real novel as Python decodes it, or skip the test."""
    if not (CORPORA / name).is_file():
        pytest.skip(NO_NOVELS)
    return (CORPORA / name).read_bytes().decode(NOVELS[name])


@pytest.fixture
def tiny_config() -> dict:
    """A checked config of a network that trains in milliseconds."""
    return {**TINY, "attn_pdrop": 0.1}


@pytest.fixture
def tiny_tokenizer(tmp_path):
    """The character tokenizer of the tiny story."""
    from novelgpt.corpus.tokenizer import load_tokenizer
    from novelgpt.corpus.tokenizers.base import save_vocabulary
    from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary

    save_vocabulary(tmp_path / "vocab.txt", build_vocabulary(STORY))
    return load_tokenizer(tmp_path / "vocab.txt")


@pytest.fixture
def tiny_options(tmp_path):
    """Return a function from changes to the options of a tiny run whose pieces and config lie in tmp_path."""
    return functools.partial(make_tiny_options, tmp_path)


def make_tiny_options(folder: Path, documents: list[str] = STORY * 3, config: dict | None = None, **changes):
    """Write vocabulary, pieces and config into a folder and return the TrainOptions of a run of about 18 steps."""
    from novelgpt.cli import TrainOptions
    from novelgpt.corpus.pieces import write_pieces
    from novelgpt.corpus.tokenizer import load_tokenizer
    from novelgpt.corpus.tokenizers.base import save_vocabulary
    from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
    from novelgpt.files import write_json

    save_vocabulary(folder / "vocab.txt", build_vocabulary(STORY))
    tokenizer = load_tokenizer(folder / "vocab.txt")
    write_json(folder / "config.json", {**TINY, "attn_pdrop": 0.1, **(config or {})})
    write_pieces(
        documents,
        tokenizer,
        folder / "pieces",
        num_pieces=3,
        valid_fraction=0.3,
        source={"path": "story.json", "sha256": hashlib.sha256("".join(documents).encode()).hexdigest()},
        vocabulary={"path": str(folder / "vocab.txt"), "sha256": tokenizer.fingerprint},
    )
    paths = {
        "model_config": str(folder / "config.json"),
        "tokenizer_path": str(folder / "vocab.txt"),
        "tokenized_data_path": str(folder / "pieces"),
        "output_dir": str(folder / "run"),
    }
    quick = {"epochs": 3, "batch_size": 4, "stride": 8, "lr": 1e-2, "log_step": 3, "sample_length": 0}
    quick |= {"optimizer": "adamw"}  # whose rounding does not grow, so that ways of splitting can be compared
    return TrainOptions(**{**paths, **quick, "device": "cpu", "precision": "fp32", **changes})


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return a function from changes to the options of a finished tiny run, trained once for all: only to be read."""
    from helpers import fit

    runs = {}

    def find(**changes):
        key = repr(sorted(changes.items()))
        if key not in runs:
            options = make_tiny_options(tmp_path_factory.mktemp("finished"), **changes)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("os.fsync", lambda handle: None)
                assert fit(options)
            runs[key] = options
        return runs[key]

    return find


@pytest.fixture(scope="session")
def stopped_run(tmp_path_factory):
    """The options of a tiny run stopped in its first epoch, with checkpoints of steps 2, 4 and 5; to be copied."""
    from helpers import stopping_after

    from novelgpt.training.session import train

    options = make_tiny_options(tmp_path_factory.mktemp("stopped"), save_steps=2, save_total_limit=9)
    with stopping_after(9), pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        assert train(options) == 0
    return options


@pytest.fixture
def row_options(tmp_path):
    """Return a function from changes to the options of a tiny run over RECORDS."""
    from novelgpt.cli import TrainOptions
    from novelgpt.corpus.tokenizers.base import save_vocabulary
    from novelgpt.corpus.tokenizers.vocabulary import build_vocabulary
    from novelgpt.files import write_json

    def make(records: list[str] = RECORDS, config: dict | None = None, **changes):
        save_vocabulary(tmp_path / "vocab.txt", build_vocabulary(STORY))
        write_json(tmp_path / "config.json", {**TINY, "n_positions": 24, "attn_pdrop": 0.1, **(config or {})})
        (tmp_path / "records.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in records))
        paths = {"model_config": "config.json", "tokenizer_path": "vocab.txt", "train_file": "records.jsonl"}
        values = {name: str(tmp_path / path) for name, path in paths.items()}
        values |= {"rows": True, "add_tokens": "[TIL]", "loss_after": "[TIL]", "block_size": BLOCK}
        values |= {"valid_fraction": 0.3, "output_dir": str(tmp_path / "run"), "epochs": 3, "batch_size": 4}
        values |= {"lr": 1e-2, "optimizer": "adamw", "log_step": 1, "sample_length": 0}
        return TrainOptions(**{**values, "device": "cpu", "precision": "fp32", **changes})

    return make


BROWSER = "chromium-headless-shell"  # Debian's package of this name; playwright's own download is not needed
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
QUIET += ("--disable-component-update", "--disable-sync")


@pytest.fixture(scope="session")
def browser():
    """A real browser, one for the session; tests that want it are skipped where there is none."""
    program = shutil.which(BROWSER)
    if program is None:
        pytest.skip(f"no {BROWSER}: apt-get install --no-install-recommends {BROWSER} fonts-wqy-microhei")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=[*QUIET])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a file or an address and returns playwright's page.

    open_page(place, language="zh-CN", colours="dark", width=360, height=640, touch=True, wait=True)

    At the end of the test none of its pages may have asked for anything but files of its own, said anything on its
    console (what a policy forbids is said there), or ended a script with an error.
    """
    contexts, faults = [], []

    def open_place(place, *, language="en-US", colours="light", width=1280, height=800, touch=False, **settings):
        address = place.resolve().as_uri() if isinstance(place, Path) else place
        own = address.partition("#")[0].rpartition("/")[0]
        size = {"viewport": {"width": width, "height": height}, "has_touch": touch}
        context = browser.new_context(locale=language, color_scheme=colours, **size, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda asked: asked.url.startswith((own, "data:", "blob:")) or faults.append(asked.url))
        page.goto(address)
        return page

    yield open_place
    for context in contexts:
        context.close()
    assert faults == []


def find_barriers(page) -> list[str]:
    """Return what axe-core finds on a page that keeps people out (WCAG 2.1, A and AA), one line a place."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
    found = Axe().run(page, options=rules).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]
