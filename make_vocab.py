"""Build the vocabulary of a novel; the command is in novelgpt/commands/vocab.py."""

from novelgpt.cli import run
from novelgpt.commands.vocab import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
