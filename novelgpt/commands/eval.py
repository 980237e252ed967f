"""Measure how well a model predicts a text: loss, perplexity, accuracy, bits per character.

    python eval.py --model_path model/best_model
    python eval.py --text_path other_novel.txt --per_chapter --html surprise.html

Without a text it scores what training held out; of a folder it scores every file by itself. A novel is cleaned first
as clr_ctrl.py does; a .json holds clean chapters. The result is one JSON object on stdout.
"""

import json
from collections.abc import Sequence

from novelgpt.api import evaluate
from novelgpt.cli import EvaluateOptions, Parser, names_with
from novelgpt.messages import EXIT_DONE


def build_parser() -> Parser[EvaluateOptions]:
    """Return the command line of eval.py."""
    return Parser(EvaluateOptions, __doc__, section="eval", prog="eval.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Score what the command line says; return the exit status."""
    options = build_parser().parse_options(argv)
    report = evaluate(
        options.model_path,
        options.text,
        path=options.text_path,
        pieces=options.tokenized_data_path,
        **{name: getattr(options, name) for name in names_with(EvaluateOptions, python=True)},
    )
    print(json.dumps(report, ensure_ascii=False))
    return EXIT_DONE
