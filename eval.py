"""Measure how well a model predicts a text; the command is in novelgpt/commands/eval.py."""

from novelgpt.cli import run
from novelgpt.commands.eval import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
