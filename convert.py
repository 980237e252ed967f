"""Take a model elsewhere and back; the command is in novelgpt/commands/convert.py."""

from novelgpt.cli import run
from novelgpt.commands.convert import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
