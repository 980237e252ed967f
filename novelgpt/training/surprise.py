"""A model and a text -> how much every character surprised the model, in nats.

token      炎   <0xF0> <0xA0> <0xAE> <0xB7>
nats      3.1     6.0    4.0    1.0    0.5
span      炎 3.1  𠮷 11.5                     bytes of one character add up
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from novelgpt.corpus.pieces import TokenStream
from novelgpt.training.evaluation import Evaluation, evaluation_batches

Scorer = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Span:
    """Characters that were read as one, nearly always a single one; nats is NaN where nothing was scored."""

    text: str
    nats: float


def score_each_token(
    scorer: Scorer,
    stream: TokenStream,
    *,
    window: int,
    stride: int,
    batch_size: int,
    characters: int,
    device: torch.device,
) -> tuple[Evaluation, np.ndarray]:
    """Score a stream and keep every token's loss.

    Args:
        scorer: (input_ids, labels) -> what loss.score_tokens returns.
        stream, window, stride, batch_size, characters, device: as of evaluate_stream.

    Returns:
        The evaluation, and float32 (N,) nats of the N tokens; NaN for those that were not scored, as the first.
    """
    nats = np.full(len(stream), np.nan, np.float32)  # (N,)
    right = 0
    for batch in evaluation_batches(stream, window, stride, batch_size):
        input_ids, labels = (torch.from_numpy(part).to(device) for part in (batch.input_ids, batch.labels))
        losses, hits = (part.cpu().numpy() for part in scorer(input_ids, labels))  # (B, T-1)
        right += int(hits.sum())
        for start, row, wanted in zip(batch.starts, losses, batch.labels[:, 1:], strict=True):
            places = np.flatnonzero(wanted >= 0)
            nats[start + 1 + places] = row[places]
    scored = ~np.isnan(nats)
    total = float(nats[scored].sum(dtype=np.float64))
    return Evaluation(total, int(scored.sum()), len(stream), characters, right), nats


def find_spans(ids: Sequence[int], nats: Sequence[float], tokenizer) -> list[Span]:
    """Turn tokens and their losses into the characters that people read and theirs.

    Args:
        ids: tokens between two [CLS].
        nats: of each.
        tokenizer: of the model; a mark stands as its name, [SEP] as a line break.
    """
    stream, spans, held = tokenizer.stream(), [], 0.0
    names = {index: name for name, index in tokenizer.marks.items()}
    for token_id, value in zip(map(int, ids), map(float, nats), strict=True):
        text, held = stream.push(token_id), held + value
        text = text or names.get(token_id, "")
        if text:
            spans.append(Span(text, held))
            held = 0.0
    rest = stream.flush()
    return [*spans, Span(rest, held)] if rest else spans


def mean_nats(spans: Sequence[Span]) -> float:
    """Return the nats a character of the scored spans; NaN without any.

    >>> mean_nats([Span("炎", 3.0), Span("……", 2.0), Span("大", math.nan)])
    1.6666666666666667
    """
    scored = [span for span in spans if not math.isnan(span.nats)]
    count = sum(len(span.text) for span in scored)
    return sum(span.nats for span in scored) / count if count else math.nan


def cut_paragraphs(spans: Sequence[Span]) -> list[list[Span]]:
    """Cut spans behind every line break; blank paragraphs are left out.

    >>> [len(part) for part in cut_paragraphs([Span("炎", 1.0), Span("\\n", 2.0), Span("大", 3.0)])]
    [2, 1]
    """
    parts: list[list[Span]] = [[]]
    for span in spans:
        parts[-1].append(span)
        if span.text.endswith("\n"):
            parts.append([])
    return [part for part in parts if "".join(span.text for span in part).strip()]
