"""A model and a stream of tokens -> its loss, perplexity, accuracy and bits per character."""

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from novelgpt.corpus.pieces import TokenStream, open_pieces
from novelgpt.corpus.tokens import encode_document
from novelgpt.loss import sum_scores
from novelgpt.messages import EXIT_INPUT, UserError
from novelgpt.training.cpu import tune_for_cpu
from novelgpt.training.evaluation import Evaluation, evaluate_stream


@dataclass(frozen=True)
class Protocol:
    """How a text is scored: tokens a window, tokens between windows, rows a pass, number format of the products."""

    window: int
    stride: int
    batch_size: int
    precision: str


def share_weights(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Return a second model in eval mode on the very weights of a first, so that its parts can be exchanged freely."""
    with torch.device("meta"):
        twin = GPT2LMHeadModel(copy.deepcopy(model.config))
    twin.load_state_dict(model.state_dict(), assign=True)
    twin.tie_weights()
    return twin.eval()


def score_function(model: GPT2LMHeadModel, dtype: torch.dtype, score: Callable = sum_scores) -> Callable:
    """Return (input_ids, labels) -> the two sums of sum_scores; on a CPU through the fast parts.

    Args:
        model: left as it is.
        dtype: format of the matrix products.
        score: sum_scores, or score_tokens for every token by itself.
    """
    model = share_weights(model)
    if next(model.parameters()).device.type == "cpu":
        tune_for_cpu(model, seed=0, dtype=dtype)
    return functools.partial(score, model, dtype=dtype)


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
    expect = {"vocabulary_sha256": tokenizer.fingerprint, "vocabulary_path": "THE_MODEL_FOLDER"}
    pieces = open_pieces(folder, expect=expect)
    if len(pieces.valid) < 2:
        hint = "give a text to score: eval.py --text_path FILE"
        raise UserError(f"{folder}: nothing is held out", hint, EXIT_INPUT)
    return pieces.valid, pieces.manifest["valid"]["characters"]


def chapter_streams(stream: TokenStream, tokenizer) -> list[TokenStream]:
    """Cut a stream at its marks: each chapter with the [CLS] before and after it."""
    places = stream.find(tokenizer.cls_id)
    return [TokenStream([stream[first : last + 1]]) for first, last in itertools.pairwise(places)]


def score_stream(
    score, stream: TokenStream, protocol: Protocol, *, characters: int, device: torch.device
) -> Evaluation:
    """Score one stream by a protocol."""
    window = {"window": protocol.window, "stride": protocol.stride, "batch_size": protocol.batch_size}
    result = evaluate_stream(score, stream, **window, characters=characters, device=device)
    assert result is not None
    return result


def figures_of(result: Evaluation) -> dict:
    """Return an evaluation as JSON values; a figure of an empty text is None."""
    names = ("loss", "perplexity", "accuracy", "nats_per_character", "bits_per_character")
    figures = {name: getattr(result, name) for name in names}
    return {
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "scored_tokens": result.scored,
        "tokens": result.tokens,
        "characters": result.characters,
    }


def report(result: Evaluation, protocol: Protocol, **facts: object) -> dict:
    """Return an evaluation and its protocol as the JSON object that eval.py prints."""
    return {**figures_of(result), **asdict(protocol), **facts}
