"""Train a GPT-2 on a cleaned novel.

    python train.py --raw --device 0,1
    torchrun --nproc_per_node=2 train.py --raw

The same command resumes a run that was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields

from novelgpt.api import train
from novelgpt.cli import new_parser, parse_options, run
from novelgpt.training.options import TrainOptions, add_train_options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every option of TrainOptions."""
    parser = new_parser(__doc__)
    add_train_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    options = parse_options(build_parser(), argv, section="train")
    values = {entry.name: getattr(options, entry.name) for entry in fields(TrainOptions)}
    command = sys.argv if argv is None else ["train.py", *argv]
    return train(TrainOptions(**values), exit_at_second=True, command=command).status


if __name__ == "__main__":
    raise SystemExit(run(main))
