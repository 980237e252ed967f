"""The options of generate.py -> a loaded model that writes sample after sample."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from novelgpt.console import printable, say, warn
from novelgpt.corpus.tokenizer import load_tokenizer
from novelgpt.devices import choose_devices, choose_precision, device_words
from novelgpt.errors import EXIT_USAGE, UserError
from novelgpt.model import load_model
from novelgpt.writing.decoder import Weights
from novelgpt.writing.generation import Plan, Sample, make_controls, write_samples
from novelgpt.writing.linear import MAX_ROWS
from novelgpt.writing.sampling import Controls

SETTINGS = (
    "length stop temperature topk topp min_p repetition_penalty penalty_window no_repeat_ngram_size bad_words "
    "cut_loops keep_head"
).split()


@dataclass
class Session:
    """A model ready to write.

    Attributes:
        options: of generate.py.
        model: GPT2LMHeadModel as loaded.
        weights: the same in the form that decodes fastest.
        tokenizer: of the model.
        plan, controls: what is written and how tokens are chosen.
    """

    options: argparse.Namespace
    model: torch.nn.Module
    weights: Weights
    tokenizer: object
    plan: Plan
    controls: Controls

    def encode_prefix(self, prefix: str) -> list[int]:
        """Turn a prefix into ids, and say in a line each what is wrong with it."""
        ids = self.tokenizer.encode_prefix(prefix).tolist()
        if ids == [self.tokenizer.cls_id]:
            say("the prefix is empty: the text begins like a chapter")
        if (unknown := ids.count(self.tokenizer.unk_id)) and self.tokenizer.unk_id is not None:
            warn(f"--prefix: {unknown} characters are not in the model's vocabulary; it reads them as [UNK]")
        if len(ids) > self.weights.context:
            warn(f"--prefix: {len(ids):,} tokens; the model reads only the last part of {self.weights.context:,}")
        return ids

    def text_of(self, sample: Sample) -> str:
        """Return a sample as people read it."""
        return self.tokenizer.show(sample.prefix + sample.ids)

    def facts_of(self, sample: Sample, prompt: str) -> dict:
        """Return a sample's line in samples.jsonl, all but its text."""
        options = self.options
        settings = {name: getattr(options, name) for name in SETTINGS}
        return {
            "prompt": prompt,
            "seed": options.seed,
            "index": sample.index,
            "attempt": sample.attempt,
            "ended": sample.ended,
            "tokens": len(sample.ids),
            "model": str(options.model_path),
            "precision": self.weights.kind,
            "settings": settings,
        }

    def write(self, prompt: str, *, watch=None) -> Iterator[Sample]:
        """Write the samples of a prefix, a batch at a time, and yield them in order.

        Args:
            prompt: the prefix as typed.
            watch: called with the batch's samples as they grow.
        """
        prefix = self.encode_prefix(prompt)
        size = min(self.options.batch_size, MAX_ROWS) if self.weights.device.type == "cpu" else self.options.batch_size
        for first in range(0, self.options.nsamples, size):
            indices = range(first, min(first + size, self.options.nsamples))
            yield from write_samples(
                self.weights,
                self.tokenizer,
                prefix,
                indices,
                plan=self.plan,
                controls=self.controls,
                seed=self.options.seed,
                watch=watch or (lambda samples: None),
            )


def open_session(options: argparse.Namespace) -> Session:
    """Load the model and resolve what depends on it.

    Raises:
        UserError: a damaged model folder, another vocabulary, or an option that does not fit the model.
    """
    devices = choose_devices(options.device)
    if len(devices) > 1 and options.device:
        warn(f"--device {options.device}: writing takes one device; using {devices[0]}")
    device = devices[0]
    model, tokenizer = load_model(options.model_path)
    check_vocabulary(options.tokenizer_path, tokenizer, options.model_path)
    weights = Weights(model, kind=choose_kind(options, device), device=device)
    plan, controls = read_plan(options, weights, tokenizer), read_controls(options, weights, tokenizer)
    say(f"{options.model_path}: {describe(model)}; {weights.kind} on {device_words([device])}; --seed {options.seed}")
    return Session(options, model, weights, tokenizer, plan, controls)


def describe(model: torch.nn.Module) -> str:
    """Say a model's size."""
    config = model.config
    parameters = sum(weight.numel() for weight in model.parameters())
    return f"{parameters:,} parameters, context {config.n_positions:,}, {config.vocab_size:,} tokens"


def choose_kind(options: argparse.Namespace, device: torch.device) -> str:
    """Return the number format of the weights: what --quantize or --precision say, else the fastest exact one here."""
    if options.quantize:
        if device.type != "cpu":
            raise UserError(f"--quantize {options.quantize}: found a {device.type} device", "--device cpu", EXIT_USAGE)
        return options.quantize
    if options.precision != "auto":
        return options.precision
    return "bf16" if choose_precision("auto", device) == torch.bfloat16 else "fp32"


def check_vocabulary(path: str | None, tokenizer, model_path: str) -> None:
    """Raise unless a vocabulary file is the model's own."""
    if path is None:
        return
    given = load_tokenizer(Path(path))
    hint = f"leave --tokenizer_path out: {model_path} has its own vocabulary"
    if given.vocab_size != tokenizer.vocab_size:
        message = f"--tokenizer_path {path}: {given.vocab_size:,} tokens, the model has {tokenizer.vocab_size:,}"
        raise UserError(message, hint, EXIT_USAGE)
    if given.fingerprint != tokenizer.fingerprint:
        place = next(i for i, pair in enumerate(zip(given.tokens, tokenizer.tokens, strict=True)) if pair[0] != pair[1])
        words = f"{printable(given.tokens[place])!r}, in the model {printable(tokenizer.tokens[place])!r}"
        raise UserError(f"--tokenizer_path {path}: line {place + 1} is {words}", hint, EXIT_USAGE)


def read_plan(options: argparse.Namespace, weights: Weights, tokenizer) -> Plan:
    """Turn options into a plan; --length -1 fills the context."""
    length = options.length
    if length == -1:
        length = max(1, weights.context - len(tokenizer.encode_prefix(options.prefix)))
    if options.keep_head > weights.context // 4:
        message = f"--keep_head: found {options.keep_head}, expected at most a quarter of the context"
        raise UserError(message, f"--keep_head {weights.context // 4}", EXIT_USAGE)
    return Plan(length, options.stop, options.cut_loops, options.keep_head)


def read_controls(options: argparse.Namespace, weights: Weights, tokenizer) -> Controls:
    """Turn options into controls."""
    if options.topk > tokenizer.vocab_size:
        message = f"--topk: found {options.topk:,}, expected at most the vocabulary's {tokenizer.vocab_size:,} tokens"
        raise UserError(message, "--topk 8", EXIT_USAGE)
    names = "temperature topk topp min_p repetition_penalty penalty_window no_repeat_ngram_size".split()
    values = {name: getattr(options, name) for name in names}
    return make_controls(tokenizer, weights.device, bad_words=options.bad_words, **values)
