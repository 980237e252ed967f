"""Encoded documents -> the part to train on and the tail held out for measuring."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt.corpus.stream import TokenStream
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.messages import UserError, warn


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
    total = int(encoded.starts[-1])  # tokens, the last [CLS] not among them
    target = math.ceil(fraction * total)
    if target == 0:
        return join_parts(encoded, tokenizer, len(encoded.characters), None)
    first = int(np.searchsorted(encoded.starts, total - target, side="right")) - 1
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
        head = len(tokenizer.decode(ids[starts[first] + 1 : cut]))
        train, tail = (TokenStream([*tokenizer.frame([part])]) for part in (ids[1:cut], ids[cut + 1 : -1]))
        valid = Part(tail, len(characters) - first, after - head - 1)
        return {"train": Part(train, first + 1, before + head), "valid": valid}
    # the [CLS] at the border ends the one part and begins the other
    train = Part(TokenStream([ids[: starts[first] + 1]]), first, before)
    tail = [ids[starts[first] :]] if first < len(characters) else []
    return {"train": train, "valid": Part(TokenStream(tail, tokenizer.dtype), len(characters) - first, after)}
