"""Turn a novel as found into clean chapters; the command is in novelgpt/commands/clean.py."""

from novelgpt.cli import run
from novelgpt.commands.clean import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
