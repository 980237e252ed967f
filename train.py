"""Train a GPT-2 on a cleaned novel; the command is in novelgpt/commands/train.py."""

from novelgpt.cli import run
from novelgpt.commands.train import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
