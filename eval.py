"""Measure how well a model predicts a text: loss, perplexity, accuracy, bits per character.

    python eval.py --model_path model/best_model
    python eval.py --text_path other_novel.json --per_chapter --html surprise.html

Without a text it scores what training held out; of a folder it scores every file by itself. The result is one JSON
object on stdout.
"""

import argparse
import json
from collections.abc import Sequence

from novelgpt.alias_table import precision_name
from novelgpt.api import evaluate
from novelgpt.cli import new_parser, parse_options, run, whole
from novelgpt.errors import EXIT_DONE


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--model_path", default="model/final_model", help="model folder (default model/final_model)")
    add("--tokenized_data_path", default="data/tokenized/", help="pieces whose held-out part is scored")
    add("--text_path", help="score this text instead: .txt, .json, .jsonl, .csv or a folder, in any encoding")
    add("--text", help="score this sentence instead")
    add("--encoding", help="encoding of text_path; default: found out")
    add("--stride", type=whole(1), help="tokens between windows, at most the context (default half of it)")
    add("--batch_size", type=whole(1), default=8, help="windows a pass (default 8)")
    add("--per_chapter", action=argparse.BooleanOptionalAction, default=False, help="score every chapter by itself too")
    add("--html", metavar="FILE", help="also write a page on which every character is coloured by its surprise")
    add(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also score by a 4-gram of the training pieces",
    )
    formats = ("auto", "bf16", "fp16", "fp32")
    add("--precision", type=precision_name, choices=formats, default="fp32", help="number format (default fp32)")
    add("--device", help="a GPU number, mps or cpu; default: the first GPU there is")
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
