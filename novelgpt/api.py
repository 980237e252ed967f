"""The Python API: train, evaluate, generate. The scripts of the same names are its first users.

Importing this module loads neither torch nor transformers; the first call does. What a user can cause is raised as
UserError, as everywhere; nothing here ends the process.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from novelgpt.cli import EvaluateOptions, GenerateOptions, TrainOptions, names_with, with_changes
from novelgpt.lock import run_lock
from novelgpt.messages import EXIT_DONE, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from novelgpt.corpus.tokenizers import NovelTokenizer

    Model = str | Path | tuple[GPT2LMHeadModel, NovelTokenizer]


@dataclass(frozen=True)
class TrainResult:
    """How a call of train ended.

    Attributes:
        status: 0 when the run is finished or its time is up, 128 + signal when it was asked to stop.
        folder: of the run.
        step, total_steps: optimizer steps done, and of the whole run.
        best_epoch, best_loss: of the lowest held-out loss, nats per token; None where nothing is held out. The epoch is
            a fraction within one.
        history: one entry an evaluation: epoch, step, valid_loss.
        finished: whether the run has come to its end, after all its steps or early, and final_model is written.
    """

    status: int
    folder: Path
    step: int = 0
    total_steps: int = 0
    best_epoch: float | None = None
    best_loss: float | None = None
    history: list[dict] = field(default_factory=list)
    finished: bool = False

    @property
    def model(self) -> Path:
        """The model folder to use: the best one, else the final one."""
        return self.folder / ("final_model" if self.best_epoch is None else "best_model")


@dataclass(frozen=True)
class Written:
    """One text that generate wrote.

    Attributes:
        text: prefix and continuation, as people read them.
        continuation: what the model wrote of it.
        ids: its new tokens.
        ended: why it ended: "length", "sentence", "paragraph", "chapter", "bound" or "loop".
        index, seed: the text is a function of them.
    """

    text: str
    continuation: str
    ids: list[int]
    ended: str
    index: int
    seed: int


def train(
    options: TrainOptions | None = None,
    *,
    progress: Callable[[dict], None] | None = None,
    exit_at_second: bool = False,
    command: Sequence[str] | None = None,
    **changes: object,
) -> TrainResult:
    """Train, or resume an unfinished run, under the lock of the run folder.

    In the main thread Ctrl-C and SIGTERM save and stop between two steps; the former handlers are restored at the end.
    In another thread signals are left alone.

    Args:
        options: the same names, ranges and defaults as the flags of train.py; None is the defaults.
        progress: called with every record of log.jsonl as it is written, for example
            {"step": 200, "epoch": 1, "loss": 5.1, "lr": 0.001, "tokens_per_second": 4100.0}.
        exit_at_second: a second signal ends the process at once, as in train.py; else it raises KeyboardInterrupt.
        command: the words of the command line that calls, script first, for run.json and for what a stopped run says
            about how to resume it; None from Python.
        changes: options by name, which override `options`.

    Returns:
        Where the run stands.

    Raises:
        KeyboardInterrupt: a second signal before the first one's checkpoint was saved; the former one is whole.
        UserError: anything the user can repair: an option out of range, missing pieces, a folder in use.

    Example::

        options = TrainOptions(model_config="config/model_config_demo.json", tokenizer_path="cache/vocab_novel.txt",
                               output_dir="build/api", epochs=1, stride=128, sample_length=0)
        result = train(options, progress=lambda record: print(record["step"]))
        assert result.finished and result.model.is_dir()
    """
    options = with_changes(options or TrainOptions(), changes, names_with(TrainOptions))
    with lock_run(options.output_dir):  # before torch is loaded, so that a second start is told at once
        from novelgpt.network import restoring_determinism
        from novelgpt.training.session import train as train_run

        with restoring_determinism():
            status = train_run(options, command=command, watch=progress, exit_at_second=exit_at_second)
    return read_result(options, status)


def lock_run(folder: str) -> contextlib.AbstractContextManager:
    """Return the lock of a run folder; only the first of torchrun's processes takes it."""
    return run_lock(folder) if os.environ.get("RANK", "0") == "0" else contextlib.nullcontext()


def read_result(options: TrainOptions, status: int = EXIT_DONE) -> TrainResult:
    """Read where a run stands; a folder without checkpoints stands at the beginning."""
    from novelgpt.files import read_json
    from novelgpt.training.checkpoint import list_checkpoints, read_progress
    from novelgpt.training.session import is_finished

    folder = options.output_path
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return TrainResult(status, folder)
    progress, total = read_progress(checkpoints[-1]), read_json(folder / "run.json")["total_steps"]
    best, finished = (progress.best_epoch, progress.best_loss), is_finished(options, checkpoints[-1])
    return TrainResult(status, folder, progress.step, total, *best, progress.history, finished)


def evaluate(
    model: "Model",
    text: str | Sequence[str] | None = None,
    *,
    path: str | Path | Sequence[str | Path] | None = None,
    pieces: str | Path = EvaluateOptions.tokenized_data_path,
    options: EvaluateOptions | None = None,
    **changes: object,
) -> dict:
    """Measure how well a model predicts a text: what eval.py prints.

    Args:
        model: a model folder, or what load_model returned, which is left as it is.
        text: a sentence or a list of documents.
        path: a file or folder instead, or several; each file is scored by itself and has an entry under `texts`.
        pieces: folder of the pieces; their held-out part is scored when neither text nor path is given.
        options: how it is measured, as flags of eval.py: encoding, stride, batch_size, per_chapter, html, baseline,
            precision, device. None is the defaults. Every token but the first is scored once, after at least
            context - stride tokens; with stride = context the first of every window is not.
        changes: the same by name, which override `options`.

    Returns:
        loss and nats_per_character in nats, perplexity, accuracy (0 to 1), bits_per_character (None for an empty text),
        scored_tokens, tokens, characters, unknown_tokens, the protocol (window, stride, batch_size, precision), and
        texts, chapters, ngram_loss where asked for. All plain JSON values.

    Raises:
        UserError: no such model or text, or an option out of its range.

    Example::

        report = evaluate("model/final_model", "那天夜里没有月亮。")
        assert report["perplexity"] > 1 and 0 <= report["accuracy"] <= 1
    """
    options = with_changes(options or EvaluateOptions(), changes, names_with(EvaluateOptions, python=True))
    if not isinstance(pieces, (str, os.PathLike)):
        raise UserError(f"pieces: found {pieces!r}, expected text", "pieces='data/tokenized/'", EXIT_USAGE)
    from novelgpt import pages
    from novelgpt.evaluation import Measure

    network, tokenizer = open_model(model, options.device)
    protocol = {name: getattr(options, name) for name in ("stride", "batch_size", "precision")}
    measure = Measure(network, tokenizer, **protocol)
    texts = measure.find_texts(text, path, os.fspath(pieces), encoding=options.encoding)
    facts = {"model": str(model)} if isinstance(model, (str, Path)) else {}
    page = functools.partial(pages.write_surprise_page, options.html) if options.html else None
    report = measure.report(texts, per_chapter=options.per_chapter, page=page, **facts)
    return report | measure.baseline(texts, os.fspath(pieces), report["loss"]) if options.baseline else report


def open_model(model: "Model", device: str | None) -> tuple:
    """Return network and tokenizer of a folder, on the device asked for, or the pair that was given.

    Raises:
        UserError: a device for a model that has one already.
    """
    if isinstance(model, tuple):
        if device is not None:
            raise UserError(f"device: found {device!r} for a loaded model", "leave it out", EXIT_USAGE)
        return model
    from novelgpt.network import choose_devices, load_model

    return load_model(model, device=choose_devices(device)[0])


def generate(model: "Model", prefix: str, options: GenerateOptions | None = None, **changes: object) -> list[Written]:
    """Let a model continue a prefix.

    Args:
        model: a model folder, or what load_model returned, which is left as it is.
        prefix: what the text begins with, with or without [CLS] in front.
        options: the same names, ranges and defaults as the flags of generate.py: length, stop, nsamples, batch_size,
            temperature, topk, topp, min_p, repetition_penalty, penalty_window, no_repeat_ngram_size,
            bad_words (a list), cut_loops, keep_head, seed, precision, quantize, device, corpus, max_copy.
        changes: the same by name, which override `options`.

    Returns:
        nsamples texts; text i is a function of (seed, i).

    Raises:
        UserError: no such model or setting, or a value out of its range.

    Example::

        texts = generate("model/final_model", "那天夜里没有月亮。", length=20, nsamples=2, seed=7)
        assert len(texts) == 2 and texts[0].text.startswith("那天夜里没有月亮。")
    """
    options = with_changes(options or GenerateOptions(), changes, names_with(GenerateOptions, python=True))
    from novelgpt.writing.generation import open_session
    from novelgpt.writing.prompts import encode_prompts, resolve_options

    loaded = model if isinstance(model, tuple) else None
    options = resolve_options(replace(options, prefix=prefix, model_path="" if loaded else str(model)))
    session = open_session(options, loaded=loaded)
    (prompt,) = encode_prompts([(prefix, "")], options, session.tokenizer, session.weights.context)
    return [
        Written(session.show(sample), session.show_new(sample), sample.ids, sample.ended, sample.index, options.seed)
        for sample in session.write(prompt.ids, prompt.stop_rule, options.nsamples)
    ]
