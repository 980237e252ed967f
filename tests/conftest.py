"""What the tests share: the real novels where they are, a tiny network, a tiny vocabulary, a tiny piece set."""

import functools
import hashlib
import os
import socket
import sys
from pathlib import Path

import pytest

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
