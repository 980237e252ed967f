"""Documents -> one long row of token ids that never has to fit into memory -> a part to train on and a held-out tail.

[CLS] chapter 1 [CLS] chapter 2 … chapter 19 [CLS]        train
[CLS] chapter 20 [CLS]                                    valid: at least valid_fraction of all tokens
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import UserError, warn

SEARCH_BLOCK = 1 << 22  # tokens searched at a time


class TokenStream:
    """A row of token ids in several arrays, read as if it were one.

    Args:
        arrays: one-dimensional, in order, all of one type; memory maps are read only where they are asked.
        dtype: type of the ids; needed only when there is no array.

    >>> stream = TokenStream([np.array([7, 8], np.uint16), np.array([9], np.uint16)])
    >>> len(stream), stream[1:3].tolist(), stream.gather(np.array([0, 1]), 2).tolist()
    (3, [8, 9], [[7, 8], [8, 9]])
    """

    def __init__(self, arrays: Sequence[np.ndarray], dtype: type | np.dtype = np.uint16):
        self.arrays = list(arrays)
        self.dtype = self.arrays[0].dtype if self.arrays else np.dtype(dtype)
        self.ends = np.cumsum([len(array) for array in self.arrays], dtype=np.int64)  # (pieces,)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return the ids of a slice without a step (N,), across borders; like a list it ends where the stream ends."""
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"step {step}, expected a slice without a step")
        return self.copy_span(start, max(start, stop))

    def copy_span(self, start: int, stop: int) -> np.ndarray:
        """Copy the ids from start up to stop (stop - start,), both inside the stream."""
        ids = np.empty(stop - start, self.dtype)

        # from array to array, as far as each reaches
        index, place = int(np.searchsorted(self.ends, start, side="right")), start
        while place < stop:
            array, end = self.arrays[index], min(stop, int(self.ends[index]))
            offset = len(array) - int(self.ends[index])
            ids[place - start : end - start] = array[place + offset : end + offset]
            index, place = index + 1, end
        return ids

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return windows (B, length) that begin at the given places.

        Args:
            starts: int64 (B,); every window lies inside the stream.
            length: tokens of each window.

        Raises:
            IndexError: a window reaches beyond the stream.
        """
        windows = np.empty((len(starts), length), self.dtype)  # (B, length)
        for row, start in enumerate(np.asarray(starts).tolist()):
            if not 0 <= start <= len(self) - length:
                raise IndexError(f"window {start}:{start + length} reaches beyond the stream of {len(self)} tokens")
            windows[row] = self.copy_span(start, start + length)
        return windows

    def find(self, token_id: int) -> np.ndarray:
        """Return the places of a token, int64 (N,); those of [CLS] are where documents begin, and the end."""
        found = [
            start + np.flatnonzero(self[start : start + SEARCH_BLOCK] == token_id)
            for start in range(0, len(self), SEARCH_BLOCK)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def read(self) -> np.ndarray:
        """Return the whole stream (N,) in memory."""
        return self[:]


@dataclass(frozen=True)
class Encoded:
    """All documents as ids end to end, framed by [CLS].

    Attributes:
        ids: (N,).
        starts: int64 (documents + 1,); where each document's [CLS] stands, and the last one, N - 1.
        characters: int64 (documents,).
        left_out: characters of each document that was too short or had no token.
    """

    ids: np.ndarray
    starts: np.ndarray
    characters: np.ndarray
    left_out: list[int]


@dataclass(frozen=True)
class Part:
    """One side of the split: a [CLS] before every document and after the last one; nothing at all if it is empty."""

    stream: TokenStream
    documents: int
    characters: int


def encode_documents(
    documents: Iterable[str],
    tokenizer: NovelTokenizer,
    path: Path,
    *,
    min_length: int,
    progress: Callable[[int], object],
) -> Encoded:
    """Write the ids of all documents end to end into one flat file and map it.

    Args:
        documents: texts, read once.
        tokenizer: from load_tokenizer.
        path: the flat file.
        min_length: leave out documents of fewer characters.
        progress: called with the characters of each document done.

    Raises:
        UserError: no document is left.
    """
    starts, characters, left_out = [0], [], []

    def encode_all() -> Iterator[np.ndarray]:
        for document in documents:
            ids = tokenizer.encode_document(document if len(document) >= min_length else "")  # (N,)
            if len(ids):
                starts.append(starts[-1] + 1 + len(ids))
                characters.append(len(document))
                yield ids
            else:
                left_out.append(len(document))
            progress(len(document))

    # straight to the disk: a corpus need not fit into memory
    with open(path, "wb") as file:
        for part in tokenizer.frame(encode_all()):
            file.write(part.data)
    if not characters:
        raise no_documents(left_out, min_length)
    ids = np.memmap(path, tokenizer.dtype, mode="r")
    return Encoded(ids, np.array(starts, np.int64), np.array(characters, np.int64), left_out)


def no_documents(lengths: list[int], min_length: int) -> UserError:
    """Say that no document is left, and how long they are."""
    longest = max(lengths, default=0)
    if longest < min_length and longest > 0:
        # a histogram tells what --min_length would leave
        lows = [low for low in (0, 1, 10, 100, 1_000, 10_000, 100_000) if low <= longest]
        highs = [*lows[1:], longest + 1]
        rows = [
            f"  {low:,} to {high - 1:,} characters: {sum(low <= length < high for length in lengths):,}"
            for low, high in zip(lows, highs, strict=True)
        ]
        message = f"--min_length {min_length}: all {len(lengths):,} documents are shorter\n" + "\n".join(rows)
        return UserError(message, f"--min_length {longest // 2}")
    return UserError(f"{len(lengths):,} documents without any text", "python clr_ctrl.py NOVEL.txt")


def hold_out(encoded: Encoded, tokenizer: NovelTokenizer, fraction: float) -> dict[str, Part]:
    """Split off the tail: whole documents from the end until they hold at least a fraction of the tokens.

    Where whole documents would take more than twice that much, or all there are, the first of them is cut at the end of
    a paragraph instead. Something always stays to train on.

    Args:
        encoded: all documents.
        tokenizer: from load_tokenizer.
        fraction: from 0 (nothing is held out) to below 1.

    Returns:
        The parts "train" and "valid"; the newline at a cut inside a document is the only token left out.
    """
    # the first document of the tail: the one in which the last `target` tokens begin
    total = int(encoded.starts[-1])  # tokens, the last [CLS] not among them
    target = math.ceil(fraction * total)
    if target == 0:
        return join_parts(encoded, tokenizer, len(encoded.characters), None)
    first = int(np.searchsorted(encoded.starts, total - target, side="right")) - 1

    # the whole document, unless that would hold out more than twice as much
    fits = first > 0 and total - encoded.starts[first] <= 2 * target
    cut = None if fits else paragraph_end(encoded, tokenizer, first, total - target)
    if first == 0 and cut is None:
        first = 1  # the least that training needs
    if first == len(encoded.characters):
        warn("nothing is held out: the only document has no end of a paragraph to cut it at")
    return join_parts(encoded, tokenizer, first, cut)


def paragraph_end(encoded: Encoded, tokenizer: NovelTokenizer, document: int, limit: int) -> int | None:
    """Return the place of the last newline of a document up to a limit; of the first document, else the next one."""
    start, stop = encoded.starts[document] + 2, encoded.starts[document + 1] - 1
    places = start + np.flatnonzero(encoded.ids[start:stop] == tokenizer.newline_id)
    before = places[places <= limit]
    if len(before):
        return int(before[-1])
    return int(places[0]) if document == 0 and len(places) else None


def join_parts(encoded: Encoded, tokenizer: NovelTokenizer, first: int, cut: int | None) -> dict[str, Part]:
    """Make train of what lies before a document (or a place inside it) and valid of the rest, both framed."""
    ids, starts, characters = encoded.ids, encoded.starts, encoded.characters
    before, after = int(characters[:first].sum()), int(characters[first:].sum())
    if cut is not None:
        # the document is counted on both sides, each with its own characters
        head = len(tokenizer.decode(ids[starts[first] + 1 : cut]))
        train, tail = (TokenStream([*tokenizer.frame([part])]) for part in (ids[1:cut], ids[cut + 1 : -1]))
        valid = Part(tail, len(characters) - first, after - head - 1)
        return {"train": Part(train, first + 1, before + head), "valid": valid}
    # the [CLS] at the border ends the one part and begins the other
    train = Part(TokenStream([ids[: starts[first] + 1]]), first, before)
    tail = [ids[starts[first] :]] if first < len(characters) else []
    return {"train": train, "valid": Part(TokenStream(tail, tokenizer.dtype), len(characters) - first, after)}
