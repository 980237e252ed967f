"""Train a GPT-2 on a cleaned novel.

    python train.py --raw --device 0,1
    python train.py --raw --book hongloumeng --config config/laptop.yaml
    torchrun --nproc_per_node=2 train.py --raw

The same command resumes a run that was interrupted.
"""

from collections.abc import Sequence

from novelgpt.api import train
from novelgpt.cli import Parser, TrainOptions


def build_parser() -> Parser[TrainOptions]:
    """Return the command line of train.py."""
    return Parser(TrainOptions, __doc__, section="train", prog="train.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    parser = build_parser()
    return train(parser.parse_options(argv), exit_at_second=True, command=parser.command(argv)).status
