"""The Python API: train, evaluate, generate. train.py and eval.py are its first users.

Importing this module loads neither torch nor transformers; the first call does. What a user can cause is raised as
UserError, as everywhere; nothing here ends the process.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from novelgpt.cli import BEGAN, EvaluateOptions, GenerateOptions, TrainOptions, book_places, names_with, with_changes
from novelgpt.lock import run_lock
from novelgpt.messages import EXIT_DONE, EXIT_USAGE, UserError, is_main_process, warn

Model = str | Path | tuple  # a model folder, or the pair (network, tokenizer) of load_model, which is left as it is


@dataclass(frozen=True)
class TrainResult:
    """How a call of train ended."""

    status: int  # 0: finished or its time is up; 128 + signal: it was asked to stop
    folder: Path  # of the run
    step: int = 0  # optimizer steps done
    total_steps: int | None = 0  # of the whole run; None where hours end it
    best_epoch: float | None = None  # of the lowest held-out loss, a fraction within one; None: nothing is held out
    best_loss: float | None = None  # that loss, nats per token
    history: list[dict] = field(default_factory=list)  # one entry per evaluation: epoch, step, valid_loss
    finished: bool = False  # all its steps or an early end are reached, and final_model is written

    @property
    def model(self) -> Path:
        """The model folder to use: the best one, else the final one."""
        return self.folder / ("final_model" if self.best_epoch is None else "best_model")


@dataclass(frozen=True)
class Written:
    """One text that generate wrote, a function of seed and index."""

    text: str  # prefix and continuation, as people read them
    continuation: str  # what the model wrote of it
    ids: list[int]  # its new tokens
    ended: str  # why: "length", "sentence", "paragraph", "chapter", "bound" or "loop"
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
    """Train, or resume an unfinished run, under the lock of the run folder; return where the run stands.

    As train.py does, it tells on stderr what it is doing: the first lines, a log line every log_step steps, evaluations
    and samples, and on a terminal a bar. In the main thread Ctrl-C and SIGTERM save and stop between two steps; the
    former handlers are restored at the end. In another thread signals are left alone.

    Args:
        options, changes: as the flags of train.py; a change by name overrides `options`, None is the defaults. With
            book="红楼梦" every path that is at its default lies in books/红楼梦/, as by --book.
        progress: called with every record of figures of log.jsonl as it is written, for example
            {"time": 1795363990.2, "step": 200, "epoch": 1, "loss": 5.1, "lr": 0.001, "tokens_per_second": 4100.0}.
        exit_at_second: a second signal ends the process at once, as in train.py; else it raises KeyboardInterrupt.
        command: the words of the command line that calls, script first, for run.json and the hint how to resume; None
            from Python.

    Raises:
        KeyboardInterrupt: a second signal before the first one's checkpoint was saved; the former one is whole.
        UserError: anything the user can repair: an option out of range, missing pieces, a folder in use.

    Example::

        result = train(model_config="config/model_config_demo.json", tokenizer_path="cache/vocab_novel.txt",
                       output_dir="build/api", epochs=1, stride=128, sample_length=0, progress=print)
        assert result.finished and result.model.is_dir()
    """
    began = time.monotonic()
    options = with_changes(options or TrainOptions(), changes, names_with(TrainOptions))
    if command is None:  # a path at its default is one of the book; the command line knows which were given
        given = {name for name, value in vars(options).items() if value != getattr(TrainOptions, name)} | {*changes}
        options = replace(options, **book_places(TrainOptions, options.book, but=given))
    from novelgpt.training.checks import check_inputs

    check_inputs(options, command)  # before torch is loaded
    # several GPUs: the command is started again, once for each
    if (options.device and "," in options.device) or options.parallel != "auto":
        from novelgpt.launch import count_processes, launch

        if (count := count_processes(options, command)) > 1:
            return read_result(options, launch(command, count, began))
    # the lock comes before torch is loaded, so that a second start is told at once
    with run_lock(options.output_dir) if is_main_process() else contextlib.nullcontext():
        from novelgpt.network import restoring_determinism
        from novelgpt.training import keeping, recipe, session

        settings = {"command": command, "watch": progress, "exit_at_second": exit_at_second}
        settings |= {"began": float(os.environ.get(BEGAN, began)), "deadline": session.find_deadline(options, began)}
        with restoring_determinism():
            for each in keeping.generations(recipe.choose_for_hours(options, command)):
                if (status := session.train(each, **settings)) is not None:
                    break
                settings["began"] = time.monotonic()  # what the first generation took is not the second one's
    return read_result(options, status)


def read_result(options: TrainOptions, status: int = EXIT_DONE) -> TrainResult:
    """Read where a run stands; a folder without checkpoints stands at the beginning."""
    from novelgpt.files import read_json
    from novelgpt.training.checkpoint import list_checkpoints, read_progress
    from novelgpt.training.keeping import is_finished

    folder = options.output_path
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return TrainResult(status, folder)
    progress, former = read_progress(checkpoints[-1]), read_json(folder / "run.json")
    total, options = former["total_steps"], replace(options, epochs=former["options"]["epochs"])
    best, finished = (progress.best_epoch, progress.best_loss), is_finished(options, checkpoints[-1])
    return TrainResult(status, folder, progress.step, total, *best, progress.history, finished)


def evaluate(
    model: Model,
    text: str | Sequence[str] | None = None,
    *,
    path: str | Path | Sequence[str | Path] | None = None,
    pieces: str | Path = EvaluateOptions.tokenized_data_path,
    options: EvaluateOptions | None = None,
    **changes: object,
) -> dict:
    """Measure how well a model predicts a text: what eval.py prints.

    Args:
        model: a model folder, or what load_model returned.
        text: a sentence or a list of documents.
        path: a file or folder instead, or several; each file is scored by itself and has an entry under `texts`. All
            but .json are cleaned first, as clr_ctrl.py does.
        pieces: folder of the pieces; their held-out part is scored when neither text nor path is given.
        options, changes: how it is measured, as flags of eval.py: encoding, stride, batch_size, per_chapter, html,
            adapt, baseline, precision, device. Every token but the first is scored once, after at least context -
            stride tokens; with stride = context the first of every window is not.

    Returns:
        Plain JSON values: loss and nats_per_character in nats, perplexity, accuracy (0 to 1), bits_per_character (None
        for an empty text), scored_tokens, tokens, characters, unknown_tokens, the protocol (window, stride, batch_size,
        precision), and texts, chapters, adapted_loss, baselines, ngram_loss, ngram_nats_per_character where asked for.

    Raises:
        UserError: no such model or text, or an option out of its range.

    Example::

        report = evaluate("model/final_model", "那天夜里没有月亮。")
        assert report["perplexity"] > 1 and 0 <= report["accuracy"] <= 1
    """
    options = with_changes(options or EvaluateOptions(), changes, names_with(EvaluateOptions, python=True))
    if not isinstance(pieces, (str, os.PathLike)):
        raise UserError(f"pieces: found {pieces!r}, expected text", "pieces='data/tokenized/'", EXIT_USAGE)
    check_place(model)
    from novelgpt.evaluation import Measure
    from novelgpt.pages import write_surprise_page

    network, tokenizer = open_model(model, options.device)
    protocol = {name: getattr(options, name) for name in ("stride", "batch_size", "precision", "adapt")}
    measure = Measure(network, tokenizer, **protocol)
    facts = {"model": str(model)} if isinstance(model, (str, Path)) else {}
    if options.baseline or (text is None and path is None):
        warn_of_other_text(model, pieces)
    reading = {"encoding": options.encoding, "force_encoding": options.force_encoding}
    texts = measure.find_texts(text, path, os.fspath(pieces), **reading, **facts)
    page = functools.partial(write_surprise_page, options.html) if options.html else None
    report = measure.report(texts, per_chapter=options.per_chapter, page=page, **facts)
    return report | measure.baseline(texts, os.fspath(pieces), report["loss"]) if options.baseline else report


def check_place(model: Model) -> None:
    """Refuse a place that holds no model before torch is loaded."""
    from novelgpt.network import check_model_folder

    if not isinstance(model, tuple):
        check_model_folder(model, hashes=False)


def warn_of_other_text(model: Model, pieces: str | Path) -> None:
    """Warn where the pieces are made of another text than a model was trained on, as both manifests have it."""
    from novelgpt.files import MANIFEST, read_json

    if isinstance(model, tuple) or not all((Path(folder) / MANIFEST).is_file() for folder in (model, pieces)):
        return
    facts = [read_json(Path(folder) / MANIFEST).get(name) for folder, name in ((model, "corpus"), (pieces, "source"))]
    was, now = ((part or {}).get("sha256") for part in facts)
    if was and now and was != now:
        warn(f"{Path(pieces)}: no longer of the corpus that {model} was trained on, but of {facts[1].get('path')}")


def open_model(model: Model, device: str | None) -> tuple:
    """Return network and tokenizer of a folder, on the device asked for, or the pair that was given."""
    if isinstance(model, tuple):
        if device is not None:
            raise UserError(f"device: found {device!r} for a loaded model", "leave it out", EXIT_USAGE)
        return model
    from novelgpt.network import choose_devices, load_model

    return load_model(model, device=choose_devices(device)[0])


def generate(model: Model, prefix: str, options: GenerateOptions | None = None, **changes: object) -> list[Written]:
    """Let a model continue a prefix; return nsamples texts, of which text i is a function of (seed, i).

    Args:
        model: a model folder, or what load_model returned.
        prefix: what the text begins with, with or without [CLS] in front.
        options, changes: as the flags of generate.py: length, stop, nsamples, batch_size, preset, temperature, topk,
            topp, min_p, typical, dry_multiplier, dry_base, dry_allowed_length, repetition_penalty, penalty_window,
            no_repeat_ngram_size, bad_words (a list), adapt, best_of, cut_loops, keep_head, seed, precision, quantize,
            device, corpus, max_copy.

    Raises:
        UserError: no such model or setting, or a value out of its range.

    Example::

        texts = generate("model/final_model", "那天夜里没有月亮。", length=20, nsamples=2, seed=7)
        assert len(texts) == 2 and texts[0].text.startswith("那天夜里没有月亮。")
    """
    options = with_changes(options or GenerateOptions(), changes, names_with(GenerateOptions, python=True))
    check_place(model)
    from novelgpt.writing.generation import open_session
    from novelgpt.writing.prompts import check_options, encode_prompts, open_book, resolve_options

    loaded = model if isinstance(model, tuple) else None
    options = resolve_options(replace(options, prefix=prefix, model_path="" if loaded else str(model)))
    session = open_session(options, open_book(options), loaded=loaded)
    check_options(options, session.tokenizer, session.weights.context)
    (prompt,) = encode_prompts([(prefix, "")], options, session.tokenizer, session.weights.context)
    return [
        Written(session.show(sample), session.show_new(sample), sample.ids, sample.ended, sample.index, options.seed)
        for sample in session.write(prompt.ids, prompt.stop_rule, options.nsamples)
    ]
