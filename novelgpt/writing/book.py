"""The book a model was trained on, found again by its hash: for openings, unknown names, copies and style."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from novelgpt.corpus.documents import read_corpus, source_sha256
from novelgpt.files import MANIFEST, read_json
from novelgpt.messages import EXIT_INPUT, UserError, warn
from novelgpt.writing.copying import CopyMeter
from novelgpt.writing.style import measure_style

HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]{2,4}")
OPENING_LENGTH = 40  # characters


class Book:
    """The chapters of a book.

    Args:
        documents: the chapters.
        sha256: hash of the corpus file, by which the index of copies is kept; None keeps none.
        cache_dir: where.
    """

    def __init__(self, documents: Sequence[str], *, sha256: str | None = None, cache_dir: str | Path = "cache"):
        self.documents = list(documents)
        self.cache_path = Path(cache_dir) / f"copies_{sha256[:16]}.npy" if sha256 else None

    def copy_meter(self) -> CopyMeter:
        """Return the meter of copies, its index built or read from the cache."""
        return CopyMeter(self.documents, self.cache_path)

    def style(self) -> dict[str, float]:
        """Return the book's style figures."""
        return measure_style(self.documents)

    def find_openings(self, words: str, count: int) -> list[str]:
        """Return openings that a prefix may take: beginnings of sentences that hold the words, spread over the book.

        >>> Book(["风起。萧炎大喝一声，走了。", "萧炎来了。"]).find_openings("萧炎", 2)
        ['萧炎大喝一声，走了。', '萧炎来了。']
        """
        found = []
        for document in self.documents:
            for match in re.finditer(rf"[^。！？…”\n]*{re.escape(words)}[^\n]*", document):
                found.append(match.group().strip()[:OPENING_LENGTH])
        found = list(dict.fromkeys(found))
        step = max(1, len(found) / max(1, count))
        return [found[int(number * step)] for number in range(min(count, len(found)))]

    def unknown_runs(self, prefix: str) -> list[tuple[str, str | None]]:
        """Return two-character runs of a prefix that the book never uses, each with the nearest that it does.

        >>> Book(["萧炎大喝一声，萧炎走了"]).unknown_runs("箫炎大喝")
        [('箫炎', '萧炎')]
        """
        text = "\n".join(self.documents)
        pairs = [run[start : start + 2] for run in HAN.findall(prefix) for start in range(len(run) - 1)]
        unknown = [pair for pair in dict.fromkeys(pairs) if pair not in text]
        return [(pair, nearest_pair(pair, text)) for pair in unknown]


def nearest_pair(pair: str, text: str) -> str | None:
    """Return the commonest two-character run of a text that shares a character with a pair in the same place."""
    one, other = map(re.escape, pair)
    found = Counter(re.findall(rf"{one}[\u3400-\u9fff]|[\u3400-\u9fff]{other}", text))
    return found.most_common(1)[0][0] if found else None


def unseen_characters(prefix: str, documents: Sequence[str]) -> list[str]:
    """Return the characters of a prefix that no document holds.

    >>> unseen_characters("萧薰", ["萧炎"])
    ['薰']
    """
    seen = set().union(*map(set, documents))
    return [char for char in dict.fromkeys(prefix) if char not in seen and not char.isspace()]


def find_book(model_path: str | Path, corpus_path: str | None) -> Book | None:
    """Return the book of a model, or None where it is not at hand.

    Args:
        model_path: a model folder; its manifest names the corpus and its hash.
        corpus_path: another place of the corpus.

    Raises:
        UserError: a corpus was given that is not the model's.
    """
    corpus = corpus_facts(model_path)
    path, sha256 = corpus_path or corpus.get("path"), corpus.get("sha256")
    if path is None or not Path(path).exists():
        if corpus_path:
            raise UserError(f"--corpus {corpus_path}: no such file", "--corpus data/train.json", EXIT_INPUT)
        return None
    found = source_sha256(path)
    if sha256 and found != sha256:
        if corpus_path:
            message = f"--corpus {path}: not the corpus that {model_path} was trained on (its sha256 differs)"
            raise UserError(message, "give the data/train.json of that training", EXIT_INPUT)
        warn(f"{path} is no longer the corpus that {model_path} was trained on; copies are not measured")
        return None
    return Book(list(read_corpus(path, field=corpus.get("field"))), sha256=found)


def corpus_facts(model_path: str | Path) -> dict:
    """Return what the manifest of a model folder says of its corpus; nothing where there is no manifest."""
    manifest = Path(model_path) / MANIFEST
    return (read_json(manifest).get("corpus") or {}) if manifest.exists() else {}
