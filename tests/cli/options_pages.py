"""The option tables -> docs/options.md and docs/options_zh.md: every option of every command, never written by hand.

python tests/cli/options_pages.py docs
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

from novelgpt.cli.table import entries_of, is_switch
from novelgpt.languages import to_chinese

COMMANDS = {"clr_ctrl": "clean", "make_vocab": "vocab", "tokenize_corpus": "tokenize", "train": "train"}
COMMANDS |= {"eval": "eval", "generate": "generate", "studio": "studio", "convert": "convert"}
COMMON = ("config", "print_config", "lang", "debug", "help")
# what only these pages say
WORDS = {
    "All options": "全部选项",
    "Every option of the eight commands with its default; `--help` shows the same. “–” is a default that the command "
    "finds by itself. A switch that is on by default is turned off with `--no-`. All but the first five may stand in a "
    "config file too: the options of a command by themselves, or under its section.": "八个命令的全部选项和默认值，"
    "`--help` 里也有。“–”表示由命令自己决定。默认打开的开关用 `--no-` 关掉。除了最前面五个，都可以写在配置文件里："
    "单独写一个命令的选项，或者写在它那一节里。",
    "Every command": "每个命令都有",
    " Section `{}`.": "小节：`{}`。",
    " (values: {})": "（取值：{}）",
    "| option | default | what it does |": "| 选项 | 默认值 | 作用 |",
    "on": "开",
    "off": "关",
}


def write_page(word: Callable[[str], str]) -> str:
    """Return the page; word: gives a text of ours in the language of the page."""
    title, about = list(WORDS)[:2]
    heading = [word("| option | default | what it does |"), "| --- | --- | --- |"]
    parsers = {script: importlib.import_module(f"novelgpt.commands.{name}") for script, name in COMMANDS.items()}
    parsers = {script: module.build_parser() for script, module in parsers.items()}
    helps = {action.dest: action.help for action in parsers["train"]._actions}
    lines = [f"# {word(title)}", "", word(about), "", f"## {word('Every command')}", "", *heading]
    lines += [f"| `--{name}` | – | {word(helps[name])} |" for name in COMMON]
    for script, parser in parsers.items():
        about = word(parser.description.split("\n\n")[0]) + word(" Section `{}`.").format(parser.section)
        lines += ["", f"## `{script}.py`, `novelgpt {COMMANDS[script]}`", "", about, "", *heading]
        lines += [write_row(flag, entry, word) for flag, entry in entries_of(parser.table).items()]
    return "\n".join([*lines, ""])


def write_row(flag: str, entry, word: Callable[[str], str]) -> str:
    """Return an option's row."""
    facts, default = entry.metadata, entry.default
    if is_switch(entry) and default is not None:
        shown = word("on" if default else "off")
    else:
        shown = "–" if default in (None, "", ()) else f"`{default}`"
    choices = word(" (values: {})").format(", ".join(facts["choices"])) if facts["choices"] else ""
    name = flag.upper() if facts["positional"] else f"--{flag}"
    return f"| `{name}` | {shown} | {word(facts['help'])}{choices} |"


def in_chinese(text: str) -> str:
    """Return a text of the pages in Chinese."""
    return WORDS.get(text) or to_chinese(text)


PAGES = {"options.md": str, "options_zh.md": in_chinese}

if __name__ == "__main__":
    for page, word in PAGES.items():
        Path(sys.argv[1], page).write_text(write_page(word), encoding="utf-8", newline="\n")
