"""A model folder and a text -> its loss, perplexity and bits per character, whole and chapter by chapter."""

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.corpus.pieces import open_pieces
from novelgpt.corpus.stream import TokenStream
from novelgpt.corpus.tokens import encode_document
from novelgpt.errors import EXIT_INPUT, UserError
from novelgpt.loss import sum_loss
from novelgpt.training.cpu import tune_for_cpu
from novelgpt.training.evaluation import Evaluation, evaluate_stream


@dataclass(frozen=True)
class Protocol:
    """How a text is scored: tokens a window, tokens between windows, rows a pass, number format of the products."""

    window: int
    stride: int
    batch_size: int
    precision: str


def loss_function(model: GPT2LMHeadModel, dtype: torch.dtype) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return (input_ids, labels) -> summed nats for a model in eval mode; on a CPU it gets the fast parts first."""
    if next(model.parameters()).device.type == "cpu":
        tune_for_cpu(model, seed=0, dtype=dtype)
    return lambda input_ids, labels: sum_loss(model, input_ids, labels, dtype=dtype)


def text_stream(documents: list[str], tokenizer) -> TokenStream:
    """Return documents as one stream: [CLS] before each and after the last one."""
    mark = np.array([tokenizer.cls_id], tokenizer.dtype)
    parts = [part for document in documents for part in (mark, encode_document(tokenizer, document))]
    return TokenStream([np.concatenate([*parts, mark])])


def held_out(folder: str | Path, tokenizer) -> tuple[TokenStream, int]:
    """Return the held-out stream of a piece set and the characters behind it.

    Raises:
        UserError: the pieces are damaged, of another vocabulary, or hold nothing out.
    """
    pieces = open_pieces(folder, expect={"vocabulary_sha256": tokenizer.fingerprint})
    if len(pieces.valid) < 2:
        hint = "give a text to score: eval.py --text_path FILE"
        raise UserError(f"{folder}: nothing is held out", hint, EXIT_INPUT)
    return pieces.valid, pieces.manifest["valid"]["characters"]


def chapter_streams(stream: TokenStream, tokenizer) -> list[TokenStream]:
    """Cut a stream at its marks: each chapter with the [CLS] before and after it."""
    places = stream.find(tokenizer.cls_id)
    return [TokenStream([stream[first : last + 1]]) for first, last in itertools.pairwise(places)]


def score_stream(
    loss_of, stream: TokenStream, protocol: Protocol, *, characters: int, device: torch.device
) -> Evaluation:
    """Score one stream by a protocol."""
    window = {"window": protocol.window, "stride": protocol.stride, "batch_size": protocol.batch_size}
    result = evaluate_stream(loss_of, stream, **window, characters=characters, device=device)
    assert result is not None
    return result


def report(result: Evaluation, protocol: Protocol, **facts: object) -> dict:
    """Return an evaluation as the JSON object that eval.py prints; a figure of an empty text is None."""
    figures = {
        "loss": result.loss,
        "perplexity": result.perplexity,
        "nats_per_character": result.nats_per_character,
        "bits_per_character": result.bits_per_character,
    }
    return {
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "scored_tokens": result.scored,
        "tokens": result.tokens,
        "characters": result.characters,
        **asdict(protocol),
        **facts,
    }
