"""Let a trained model continue a prefix; the command is in novelgpt/commands/generate.py."""

from novelgpt.cli import run
from novelgpt.commands.generate import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
