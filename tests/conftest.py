"""What the tests share: the shared novels when they are there, a tiny network, a tiny vocabulary, a tiny piece set."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ROOT.parent / "shared" / "corpora"
TINY = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 16, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
STORY = [
    "第一章 井\n乔一斗坐在井边，数着水里的星星。\n“水又少了一寸。”他说。",
    "第二章 剑\n闻人雀的剑只有半截。\n“半截也够用。”她说……",
    "第三章 潮\n水从井里涨上来，漫过了门槛——谁也没有说话。",
]


@pytest.fixture
def corpora() -> Path:
    """The folder of real novels, or a skip where it is absent."""
    if not CORPORA.is_dir():
        pytest.skip("the shared novels are not on this machine")
    return CORPORA


@pytest.fixture
def tiny_config() -> dict:
    """A checked config of a network that trains in milliseconds."""
    return {**TINY, "attn_pdrop": 0.1}


@pytest.fixture
def tiny_tokenizer(tmp_path):
    """The character tokenizer of the tiny story."""
    from novelgpt.corpus.tokenizer import load_tokenizer
    from novelgpt.corpus.vocabulary import build_vocabulary, save_vocabulary

    save_vocabulary(tmp_path / "vocab.txt", build_vocabulary(STORY))
    return load_tokenizer(tmp_path / "vocab.txt")
