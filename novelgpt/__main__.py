"""The eight commands under one name.

    novelgpt clean novel.txt
    novelgpt train --raw

`python -m novelgpt` is the same.
"""

import importlib
import re
from collections.abc import Sequence

from novelgpt.cli import run
from novelgpt.messages import COMMANDS, EXIT_DONE, EXIT_USAGE, UserError, command_line, nearest_words, shown

NAMES = tuple(COMMANDS.values())
END = re.compile("[:,。：，]|[.]$")  # of what a command says about itself in a list
OTHER_NAMES = {script.removesuffix(".py"): name for script, name in COMMANDS.items()}


def start() -> int:
    """Run the command that the command line names; return its exit status."""
    return run(main, command_line()[1:])


def main(argv: Sequence[str]) -> int:
    """Hand the words after the first one to the command that it names; without any, list the commands."""
    if not argv or argv[0] in ("-h", "--help"):
        print(list_commands())
        return EXIT_DONE
    name, words = argv[0].removesuffix(".py"), argv[1:]
    if name not in NAMES:
        hint = nearest_words(name, NAMES, prefix="novelgpt ", aliases=OTHER_NAMES)
        raise UserError(f"unknown command {name}", hint, EXIT_USAGE)
    return importlib.import_module(f"novelgpt.commands.{name}").main(words)


def list_commands() -> str:
    """Return a line for each command: its name and the first words of what it says about itself."""
    lines = [shown("usage: novelgpt COMMAND …"), ""]
    for name in NAMES:
        sentence = importlib.import_module(f"novelgpt.commands.{name}").__doc__.partition("\n")[0]
        lines.append(f"  {name:10}{re.split(END, shown(sentence))[0]}")
    return "\n".join([*lines, "", shown("novelgpt COMMAND --help lists the options of a command.")])


if __name__ == "__main__":
    raise SystemExit(start())
