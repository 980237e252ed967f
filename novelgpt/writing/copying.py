"""A text and the book -> how much of the text is copied: longest shared runs, by a suffix array.

A suffix array lists all places of the book in the order of the texts that begin there, like a concordance. The place at
which a sample's text would have to be inserted has the best matches on either side, so the longest run shared with five
million characters takes some twenty comparisons.
"""

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt.files import atomic_writer
from novelgpt.messages import UserError, warn

SEPARATOR = 0x110000  # between documents: larger than any code point, equal to none
LAST_SIGN = "\U0010ffff"  # the same in a text: a code point that is no character
FIRST_DEPTH = 3  # characters packed into the first sorting key
COMPARED = 32  # characters at a time
QUOTED = 30  # characters of a copied passage that are shown
LONG_RUN = 20  # characters; runs of at least this length count as copied


@dataclass(frozen=True)
class Copied:
    """What a text shares with the book."""

    longest: int  # characters of the longest run
    start: int  # where the run begins in the text
    document: int | None  # index of the book's document that holds it, None when there is no run
    offset: int  # where in that document
    share: float  # part of the text's characters that lie in runs of LONG_RUN or more, 0 to 1


def utf32_codes(text: str) -> np.ndarray:
    """Return the code points of a text (N,) int32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4")


def build_suffix_array(codes: np.ndarray) -> np.ndarray:
    """Sort all places of a text by what begins there (prefix doubling, Manber and Myers 1993).

    Only places whose order is still open are sorted again, by what begins twice as far on.

    Args:
        codes: (N,) numbers from 0 to 0x110000.

    Returns:
        (N,) int32, the places in order.

    >>> build_suffix_array(utf32_codes("banana")).tolist()
    [5, 3, 1, 0, 4, 2]
    """
    # sort by the first three characters, packed into one number each
    length = len(codes)
    padded = np.concatenate([codes.astype(np.int64) + 1, np.zeros(FIRST_DEPTH, np.int64)])
    key = np.zeros(length, np.int64)
    for place in range(FIRST_DEPTH):
        key = key << 21 | padded[place : place + length]
    order = np.argsort(key).astype(np.int32)  # (N,) the array in the making
    # places that begin alike form a group; a group's rank is that of its first slot
    rank = np.zeros(length + 1, np.int64)  # of each place: the first slot of its group, from 1; 0 beyond the end
    slots, depth = np.arange(length), FIRST_DEPTH
    key = key[order]
    while len(slots):
        new_group = np.concatenate([[True], key[1:] != key[:-1]])
        first_slot = slots[np.maximum.accumulate(np.where(new_group, np.arange(len(slots)), 0))]
        rank[order[slots]] = first_slot + 1
        # a group of one is in its place for good
        alone = new_group & np.concatenate([new_group[1:], [True]])
        slots = slots[~alone]
        # within a group, the rank of what follows `depth` characters on decides: twice as many are compared
        places = order[slots]
        key = rank[places] * (length + 1) + rank[np.minimum(places + depth, length)]
        sorting = np.argsort(key)
        order[slots], key = places[sorting], key[sorting]
        depth *= 2
    return order


def common_lengths(text: np.ndarray, starts: np.ndarray, book: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return how many characters agree from text[starts] and book[places] on, pair by pair.

    >>> common_lengths(utf32_codes("abcx"), np.array([0, 1]), utf32_codes("abcabd"), np.array([3, 1])).tolist()
    [2, 2]
    """
    lengths = np.zeros(len(starts), np.int64)
    open_pairs = np.arange(len(starts))
    steps = np.arange(COMPARED)
    while len(open_pairs):
        one = (starts + lengths)[open_pairs, None] + steps  # (P, COMPARED)
        other = (places + lengths)[open_pairs, None] + steps
        inside = (one < len(text)) & (other < len(book))
        same = inside & (text[np.minimum(one, len(text) - 1)] == book[np.minimum(other, len(book) - 1)])
        # pairs that agree in all of these characters are compared further
        agreed = np.where(same.all(1), COMPARED, same.argmin(1))
        lengths[open_pairs] += agreed
        open_pairs = open_pairs[agreed == COMPARED]
    return lengths


class CopyMeter:
    r"""A book in which texts are looked up.

    Args:
        documents: the chapters of the book.
        cache_path: where the suffix array is kept between runs; None keeps nothing.

    >>> meter = CopyMeter(["第一章 风起\n萧炎大喝一声", "第二章 云涌"])
    >>> copied = meter.measure("且说萧炎大笑")
    >>> copied.longest, copied.start, copied.document, copied.offset
    (3, 2, 0, 7)
    """

    def __init__(self, documents: Sequence[str], cache_path: str | Path | None = None):
        self.headings = [" ".join(document.strip().split("\n", 1)[0].split())[:40] for document in documents]
        parts = [np.append(utf32_codes(document), np.int32(SEPARATOR)) for document in documents]
        self.starts = np.cumsum([0] + [len(part) for part in parts])  # of each document
        self.codes = np.concatenate(parts)
        self.order = load_order(cache_path, len(self.codes))
        if self.order is None:
            self.order = build_suffix_array(self.codes)
            if cache_path:
                save_order(self.order, cache_path)

    def match_lengths(self, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for every place of a text the longest run from there on that is in the book, and where (N,), (N,)."""
        # find the slot of every suffix of the text, all binary searches at once
        starts = np.arange(len(text))
        low, high = np.zeros(len(text), np.int64), np.full(len(text), len(self.order))
        while (low < high).any():
            middle = np.minimum((low + high) // 2, len(self.order) - 1)
            places = self.order[middle].astype(np.int64)
            agreed = common_lengths(text, starts, self.codes, places)
            ours, theirs = char_at(text, starts + agreed), char_at(self.codes, places + agreed)
            after = (theirs < ours) & (low < high)
            low, high = np.where(after, middle + 1, low), np.where(after | (low >= high), high, middle)
        # the best match is a neighbour of the slot, before or behind
        best, where = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)
        for slot in (low - 1, low):
            places = self.order[np.clip(slot, 0, len(self.order) - 1)].astype(np.int64)
            agreed = common_lengths(text, starts, self.codes, places)
            best, where = np.maximum(best, agreed), np.where(agreed > best, places, where)
        return best, where

    @functools.cached_property
    def text(self) -> str:
        """The whole book as a text, with a sign between documents that sorts behind all others as SEPARATOR does."""
        codes = np.where(self.codes == SEPARATOR, ord(LAST_SIGN), self.codes).astype("<u4")
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    def followers(self, words: str, length: int) -> set[str]:
        """Return the texts of so many characters that follow some words in a document of the book.

        >>> sorted(CopyMeter(["萧炎大喝，萧炎走了", "萧炎"]).followers("萧炎", 1))
        ['大', '走']
        """
        text, size = self.text, len(words)

        def begins(place: int) -> str:
            return text[place : place + size]

        low = bisect.bisect_left(self.order, words, key=begins)
        high = bisect.bisect_right(self.order, words, low, key=begins)
        found = {text[place + size : place + size + length] for place in self.order[low:high].tolist()}
        return {each for each in found if len(each) == length and LAST_SIGN not in each}

    def measure(self, text: str) -> Copied:
        """Return what a text shares with the book."""
        codes = utf32_codes(text)
        if not len(codes):
            return Copied(0, 0, None, 0, 0.0)
        lengths, places = self.match_lengths(codes)
        start = int(lengths.argmax())
        # long runs overlap: count at every character how many have begun and not ended
        edges = np.zeros(len(codes) + 1, np.int64)
        for run in np.flatnonzero(lengths >= LONG_RUN):
            edges[run] += 1
            edges[run + lengths[run]] -= 1
        share = float((edges[:-1].cumsum() > 0).mean())
        if not lengths[start]:
            return Copied(0, 0, None, 0, share)
        document = int(np.searchsorted(self.starts, places[start], side="right")) - 1
        return Copied(int(lengths[start]), start, document, int(places[start] - self.starts[document]), share)

    def describe_copied(self, copied: Copied) -> str:
        """Return one line about what a text shares with the book."""
        if copied.document is None:
            return "shares no character with the book"
        place = int(self.starts[copied.document]) + copied.offset
        words = "".join(map(chr, self.codes[place : place + min(copied.longest, QUOTED)])).replace("\n", " ")
        quote = f"“{words}{'…' if copied.longest > QUOTED else ''}”, in the chapter “{self.headings[copied.document]}”"
        share = f"{copied.share:.0%} in runs of {LONG_RUN} or more"
        return f"longest passage shared with the book: {copied.longest} characters, {quote}; {share}"


class CopyGuard:
    """Keeps texts from copying more than so many characters of a book in a row.

    Args:
        tokenizer: the NovelTokenizer of the model.
        meter: of the book.
        limit: characters, at least 1.
        before: the text that the samples go on from; a run may have begun in it.
        rows: how many samples.
    """

    def __init__(self, tokenizer, meter: CopyMeter, limit: int, before: str, rows: int):
        self.meter, self.limit = meter, limit
        self.tails, self.streams = [before[-limit:]] * rows, [tokenizer.stream() for _ in range(rows)]
        # the tokens that begin with some characters; those that hold more of the book than they may
        self.beginnings: dict[str, list[int]] = {}
        self.too_long: list[int] = []
        self.longest = 1  # characters of a token
        self.byte_ids = tokenizer.byte_ids.tolist()
        for token_id, text in enumerate(token_texts(tokenizer)):
            for length in range(1, len(text) + 1):
                self.beginnings.setdefault(text[:length], []).append(token_id)
            self.longest = max(self.longest, len(text))
            runs = (text[start : start + limit + 1] for start in range(len(text) - limit))
            if any(meter.followers(run[:-1], 1) & {run[-1]} for run in runs):
                self.too_long.append(token_id)

    def banned(self, row: int) -> list[int]:
        """Return the tokens that would lengthen a run beyond the limit: every match of the book ends here."""
        tail, found = self.tails[row], list(self.too_long)
        # the character at `place` of a token, with the limit's characters before it
        for place in range(min(self.longest, self.limit)):
            words = tail[len(tail) - self.limit + place :] if len(tail) >= self.limit - place else None
            for text in self.meter.followers(words, place + 1) if words is not None else ():
                found += self.beginnings.get(text, ())
                if place == 0:
                    found += self.last_byte(row, text)
        return found

    def last_byte(self, row: int, character: str) -> list[int]:
        """Return the byte token with which a character would be whole that is being spelled."""
        pending = self.pending(row)
        spelled = character.encode("utf-8", "surrogatepass")
        return [self.byte_ids[spelled[-1]]] if pending and pending == spelled[:-1] else []

    def pending(self, row: int) -> bytes:
        """Return the bytes of a character that is not whole yet."""
        decoder = getattr(self.streams[row], "decoder", None)
        return decoder.getstate()[0] if decoder else b""

    def push(self, row: int, token_id: int) -> None:
        """Take the next token of a sample."""
        text = self.streams[row].push(token_id).replace("\ufffd", "")
        self.tails[row] = (self.tails[row] + text)[-self.limit :]


def token_texts(tokenizer) -> list[str]:
    """Return the text of every token of a NovelTokenizer as people see it; of a torn byte and a hidden mark nothing."""
    return [
        part.decode("utf-8", "ignore") if isinstance(part, bytes) else part[2 * part.startswith("##") :] or part
        for part in tokenizer.shown
    ]


def char_at(codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the codes at some places, -1 beyond the end."""
    return np.where(places < len(codes), codes[np.minimum(places, len(codes) - 1)], -1)


def save_order(order: np.ndarray, path: str | Path) -> None:
    """Write a suffix array to its file; where that fails, every run builds it again."""
    # the index saves time only, so a full disk ends no run
    try:
        with atomic_writer(path) as file:
            np.save(file, order)
    except UserError as problem:
        warn(f"{problem.message}; the book's index is built again in every run")


def load_order(path: str | Path | None, length: int) -> np.ndarray | None:
    """Return a suffix array kept earlier; None when there is none of this length or it cannot be read."""
    if path is None or not Path(path).is_file():
        return None
    try:
        order = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
    return order if order.shape == (length,) and order.dtype == np.int32 else None
