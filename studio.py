"""Write with a trained model in the browser; the command is in novelgpt/commands/studio.py."""

from novelgpt.cli import run
from novelgpt.commands.studio import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    raise SystemExit(run(main))
