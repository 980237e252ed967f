"""Every option of eval.py with its default and range, for the command line and for Python."""

import argparse

from novelgpt.alias_table import precision_name
from novelgpt.checks import check_setting
from novelgpt.cli import whole


def add_eval_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of eval.py."""
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


def check_eval_settings(**settings: object) -> dict[str, object]:
    """Return settings given in Python as the command line would store them.

    Args:
        settings: options of eval.py by name.

    Raises:
        UserError: a value that the command line would refuse.

    >>> check_eval_settings(precision="bf16-mixed", batch_size="4")
    {'precision': 'bf16', 'batch_size': 4}
    """
    parser = argparse.ArgumentParser()
    add_eval_options(parser)
    actions = {action.dest: action for action in parser._actions}
    return {name: check_setting(actions[name], value) for name, value in settings.items()}
