"""The book a model was trained on, found again by its hash -> openings, and names that are misspelt."""

import re
import threading
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from novelgpt.files import MANIFEST, read_json
from novelgpt.messages import EXIT_INPUT, UserError, warn

if TYPE_CHECKING:  # numpy stands behind it
    from novelgpt.writing.copying import CopyMeter

CACHE = "cache"  # folder, from where the script is started

# what a prefix is looked up by
HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]{2,}")
OPENING_LENGTH = 40  # characters
LEAST_SEEN, LEAST_SHARE = 20, 0.6  # times that the book writes a name, and of all pairs with one of its characters

# who speaks: 宝玉 in “宝玉笑道：”; the name is what stands in front of how it is said
SPEAKER = re.compile(
    r"(?:^|(?<=[。！？…，；：”’」』、\n\s]))([\u3400-\u9fff]{2,6}?)"
    r"[忙又便因乃大冷微陪只也就笑叹嘆哭喝叫问問答应應回说說怒骂罵]{0,3}[道曰说說](?:[：:]|，?[“「『])",
    re.MULTILINE,
)
LONGEST_SPEAKER = 4  # characters; what is longer tells who, and what is done
LEAST_SPOKEN, MOST_SPEAKERS = 5, 200  # times that a person speaks, and persons, that DRY leaves alone


class Book:
    """The chapters of a book.

    Args:
        documents: the chapters.
        sha256: hash of the corpus file, by which the index of copies is kept; None if it is not to be kept.
    """

    def __init__(self, documents: Sequence[str], *, sha256: str | None = None):
        self.documents = list(documents)
        self.cache_path = Path(CACHE) / f"copies_{sha256[:16]}.npy" if sha256 else None
        self.making_meter = threading.Lock()

    @property
    def meter(self) -> "CopyMeter":
        """What finds copies of the book, made when it is first asked for, which may take some seconds, and once."""
        with self.making_meter:
            return self._meter

    @cached_property
    def _meter(self) -> "CopyMeter":
        from novelgpt.writing.copying import CopyMeter

        return CopyMeter(self.documents, self.cache_path)

    @property
    def has_meter(self) -> bool:
        """Whether it is made already."""
        return "_meter" in vars(self)

    @cached_property
    def speakers(self) -> list[str]:
        """The names of those who speak often, most first."""
        found = Counter(name for document in self.documents for name in find_speakers(document))
        return [name for name, count in found.most_common(MOST_SPEAKERS) if count >= LEAST_SPOKEN]

    def find_openings(self, words: str, count: int) -> list[str]:
        """Return openings that a prefix may take: beginnings of sentences that hold the words, spread over the book.

        >>> Book(["风起。萧炎大喝一声，走了。", "萧炎来了。"]).find_openings("萧炎", 2)
        ['萧炎大喝一声，走了。', '萧炎来了。']
        """
        found = []
        for document in self.documents:
            for match in re.finditer(rf"[^。！？…”\n]*{re.escape(words)}[^\n]*", document):
                found.append(match.group().strip()[:OPENING_LENGTH])
        # each one once, and so many of them at even distances
        found = list(dict.fromkeys(found))
        step = max(1, len(found) / max(1, count))
        return [found[int(number * step)] for number in range(min(count, len(found)))]

    def opening(self, number: int) -> str:
        """Return how a chapter begins, behind its heading: the sentences, or clauses, that fit in OPENING_LENGTH.

        Args:
            number: of the chapter, from 0; beyond the last one they are counted anew.

        >>> Book(["第一章 风起\\n“走！”萧炎大喝一声，走了。风起"]).opening(7)
        '“走！”萧炎大喝一声，走了。'
        """
        from novelgpt.corpus.headings import read_heading

        lines = [line for line in self.documents[number % len(self.documents)].split("\n") if line.strip()]
        body = lines[1:] if len(lines) > 1 and read_heading(lines[0]) else lines
        text = body[0].strip()[:OPENING_LENGTH] if body else ""
        whole = re.match(r".*[。！？…][”』」]?|.*[，；：、]", text)
        return whole.group() if whole else text

    def misspelt_names(self, prefix: str) -> list[tuple[str, str]]:
        """Return pairs of characters in a prefix that look like a misspelt name, each with what the book writes.

        The book never uses such a pair, one of its characters hardly ever stands but in another pair, and nothing else
        explains the other one: it is rarer than that pair and makes none that the book knows with its other neighbour.

        >>> Book(["萧炎大喝一声，萧炎走了。"] * 10).misspelt_names("只见箫炎大喝")
        [('箫炎', '萧炎')]
        """
        text, found = "\n".join(self.documents), {}
        for run in HAN.findall(prefix):
            for place in range(len(run) - 1):
                pair = run[place : place + 2]
                if pair not in text:
                    outer = run[max(0, place - 1) : place + 1], run[place + 1 : place + 3]  # what else each stands in
                    found |= dict.fromkeys((pair, near) for near in usual_pairs(pair, outer, text))
        return list(found)


def find_speakers(text: str) -> list[str]:
    """Return who speaks in a text, each as often as it does.

    >>> find_speakers("宝玉笑道：“好。”黛玉道：“不好。”袭人因又问道：“是么？”")
    ['宝玉', '黛玉', '袭人']
    """
    return [name for name in SPEAKER.findall(text) if len(name) <= LONGEST_SPEAKER]


def usual_pairs(pair: str, outer: tuple[str, str], text: str) -> list[str]:
    """Return the pairs of a text for which a pair may be misspelt in one character, its first or its second.

    Outer are the pairs of the first character with what stands before it and of the second with what follows it; one
    character where nothing does.
    """
    one, other = map(re.escape, pair)
    patterns = (rf"[\u3400-\u9fff]{other}", pair[0], outer[0]), (rf"{one}[\u3400-\u9fff]", pair[1], outer[1])
    result = []
    for pattern, wrong, beside in patterns:
        found = Counter(re.findall(pattern, text))
        near, count = max(found.items(), key=lambda item: item[1], default=("", 0))
        is_usual = count >= LEAST_SEEN and count >= LEAST_SHARE * found.total()
        if is_usual and text.count(wrong) < count and not (len(beside) == 2 and beside in text):
            result.append(near)
    return result


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
    # where it was in training, or where the user says it is now
    corpus = corpus_facts(model_path)
    path, sha256 = corpus_path or corpus.get("path"), corpus.get("sha256")
    if path is None or not Path(path).exists():
        if corpus_path:
            raise UserError(f"--corpus {corpus_path}: no such file", "--corpus data/train.json", EXIT_INPUT)
        return None
    # reading a corpus takes a quarter of a second to load, which a model without its book does without
    from novelgpt.corpus.documents import read_corpus, source_sha256

    # another text at that place: an error if the user named it, else the book is lost
    found = source_sha256(path)
    if sha256 and found != sha256:
        if corpus_path:
            message = f"--corpus {path}: not the corpus that {model_path} was trained on (its sha256 differs)"
            raise UserError(message, "give the data/train.json of that training", EXIT_INPUT)
        warn(f"{path} is no longer the corpus that {model_path} was trained on; copies are not measured")
        return None
    return Book(list(read_corpus(path, field=corpus.get("field"))), sha256=found)


def hint_at_book(model_path: str | Path) -> str:
    """Return what brings the book of a model back that find_book has not found."""
    path = corpus_facts(model_path).get("path")
    if path and not Path(path).exists():
        return f"--corpus FILE, where FILE is what was {path}"
    # another text is at that place, or none is known
    return (
        f"clean the novel of {model_path} again: python clr_ctrl.py NOVEL --output book.json; then --corpus book.json"
    )


def corpus_facts(model_path: str | Path) -> dict:
    """Return what the manifest of a model folder says about its corpus; an empty dict where there is no manifest."""
    manifest = Path(model_path) / MANIFEST
    return (read_json(manifest).get("corpus") or {}) if manifest.exists() else {}
