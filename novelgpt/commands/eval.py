"""Measure how well a model predicts a text: loss, perplexity, accuracy, bits per character.

    python eval.py --model_path model/best_model
    python eval.py --text_path other_novel.txt --per_chapter --html surprise.html
    python eval.py --training_page model/

Without a text it scores what training held out; of a folder it scores every file by itself. A novel is cleaned first
as clr_ctrl.py does; a .json holds clean chapters. The result is one JSON object on stdout. Of a run it writes the page
that shows how the book was learned.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from novelgpt.api import evaluate
from novelgpt.cli import EvaluateOptions, Parser, names_with
from novelgpt.messages import EXIT_DONE, EXIT_ENVIRONMENT, EXIT_USAGE, UserError
from novelgpt.pages import write_training_page


def build_parser() -> Parser[EvaluateOptions]:
    """Return the command line of eval.py."""
    return Parser(EvaluateOptions, __doc__, section="eval", prog="eval.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Score what the command line says; return the exit status."""
    options = build_parser().parse_options(argv)
    if options.training_page is not None:
        return write_page(options)
    report = evaluate(
        options.model_path,
        options.text,
        path=options.text_path,
        pieces=options.tokenized_data_path,
        **{name: getattr(options, name) for name in names_with(EvaluateOptions, python=True)},
    )
    print(json.dumps(report, ensure_ascii=False))
    return EXIT_DONE


def write_page(options: EvaluateOptions) -> int:
    """Write the page of a run, which needs no other option; return the exit status.

    Raises:
        UserError: another option is given too, no run is there, or the page cannot be written.
    """
    usual = asdict(EvaluateOptions(training_page=options.training_page))
    if others := [name for name, value in asdict(options).items() if value != usual[name]]:
        raise UserError(f"--training_page scores nothing, so --{others[0]} has no effect", "leave it out", EXIT_USAGE)
    folder = Path(options.training_page)
    if not (folder / "log.jsonl").is_file():
        raise UserError(f"{folder}: no log.jsonl there, expected a run folder", "python eval.py --training_page model/")
    try:
        write_training_page(folder)
    except OSError as problem:
        hint = "free some space, or copy log.jsonl and run.json to a place that you may write to"
        raise UserError(f"{folder}: training.html not written: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
    print(json.dumps({"training_page": str(folder / "training.html")}, ensure_ascii=False))
    return EXIT_DONE
