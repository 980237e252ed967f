"""Measure how well a model predicts a text: loss, perplexity, accuracy, bits per character.

    python eval.py --model_path model/best_model
    python eval.py --text_path other_novel.json --per_chapter --html surprise.html

Without a text it scores what training held out; of a folder it scores every file by itself. The result is one JSON
object on stdout.
"""

import argparse
import json
from collections.abc import Sequence

from novelgpt.api import evaluate
from novelgpt.cli import new_parser, parse_options, run
from novelgpt.messages import EXIT_DONE
from novelgpt.training.eval_options import add_eval_options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = new_parser(__doc__)
    add_eval_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Score what the command line says; return the exit status."""
    options = parse_options(build_parser(), argv, section="eval")
    names = "encoding stride batch_size precision device per_chapter baseline html".split()
    report = evaluate(
        options.model_path,
        options.text,
        path=options.text_path,
        pieces=options.tokenized_data_path,
        **{name: getattr(options, name) for name in names},
    )
    print(json.dumps(report, ensure_ascii=False))
    return EXIT_DONE


if __name__ == "__main__":
    raise SystemExit(run(main))
