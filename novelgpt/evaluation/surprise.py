"""Tokens and their nats -> the characters that people read, each with how much it surprised the model::

token      炎   <0xF0> <0xA0> <0xAE> <0xB7>
nats      3.1     6.0    4.0    1.0    0.5
span      炎 3.1  𠮷 11.5                     bytes of one character add up
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from novelgpt.corpus.tokenizers import NovelTokenizer


@dataclass(frozen=True)
class Span:
    """Characters that were read as one, nearly always a single one; nats is NaN where nothing was scored."""

    text: str
    nats: float


def find_chapters(ids: np.ndarray, places: np.ndarray, nats: np.ndarray, tokenizer: NovelTokenizer) -> list[list[Span]]:
    """Return the spans of each chapter of a text: of what stands between two [CLS].

    Args:
        ids: (N,), all tokens of the text.
        places: int64 (S,), those of the scored tokens.
        nats: (S,), what each of them cost.
        tokenizer: of the model.
    """
    every = np.full(len(ids), np.nan, np.float32)  # (N,)
    every[places] = nats
    # two marks in a row enclose no chapter
    marks = np.flatnonzero(ids == tokenizer.cls_id)
    cuts = [(first + 1, last) for first, last in itertools.pairwise(marks) if last > first + 1]
    return [find_spans(ids[first:last], every[first:last], tokenizer) for first, last in cuts]


def find_spans(ids: Sequence[int], nats: Iterable[float], tokenizer: NovelTokenizer) -> list[Span]:
    """Turn tokens and their losses into the characters that people read and theirs.

    Args:
        ids: tokens between two [CLS].
        nats: of each.
        tokenizer: of the model; a mark stands as its name, [SEP] as a line break.
    """
    stream, spans, held = tokenizer.stream(), [], 0.0
    names = {index: name for name, index in tokenizer.marks.items()}
    for token_id, value in zip(map(int, ids), map(float, nats), strict=True):
        # the stream keeps the bytes of an unfinished character back; their nats are held until it comes out
        text, held = stream.push(token_id), held + value
        text = text or names.get(token_id, "")
        if text:
            spans.append(Span(text, held))
            held = 0.0
    rest = stream.flush()
    # bytes that never became a character show as a replacement sign
    return [*spans, Span(rest, held)] if rest else spans
