"""Turn cleaned chapters into numbered files of token ids; the command is in novelgpt/commands/tokenize.py."""

from novelgpt.cli import run
from novelgpt.commands.tokenize import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
