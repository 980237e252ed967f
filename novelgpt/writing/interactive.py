"""Writing by turns: the model continues, the person keeps, rewrites, undoes, edits; the text lives in a file."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from novelgpt.files import write_text
from novelgpt.messages import EXIT_INPUT, UserError, printable, say

HELP = """[Enter] continue    r rewrite the last part    u undo    e TEXT put TEXT in its place    t 0.8 temperature
+ TEXT add TEXT of your own    q quit"""
STORY = "story.txt"  # in the folder of --save_samples_path


class Story:
    """A text in parts, saved after every change.

    Args:
        path: its file. A text that is already there is the first part.
        prefix: the first part otherwise.
    """

    def __init__(self, path: Path, prefix: str):
        self.path = path
        self.parts = [read_story(path) if path.exists() else prefix]
        self.tries = 0  # of the part that comes next, beside the first one

    @property
    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.parts)

    def save(self) -> None:
        """Write the text to its file."""
        write_text(self.path, self.text)

    def add(self, part: str) -> None:
        """Append a part."""
        self.parts.append(part)
        self.tries = 0
        self.save()

    def drop(self) -> bool:
        """Remove the last part; False when only the beginning is left."""
        if len(self.parts) == 1:
            return False
        self.parts.pop()
        self.save()
        return True


def read_story(path: Path) -> str:
    """Read a text that is to be continued; one that is not UTF-8 is refused."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        message = f"{path}: not UTF-8, byte {problem.start:,} is {problem.object[problem.start]:#04x}"
        moved = path.with_name("moved.txt")
        hint = f"move it away; its text, in any encoding, may be the beginning: --prefix_file {moved}"
        raise UserError(message, hint, EXIT_INPUT) from problem


def write_by_turns(
    session, beginning: str, rule, path: Path, lines: Iterable[str], show: Callable[[str], None]
) -> None:
    """Carry out commands until they end.

    Args:
        session: the Session that writes; the command t changes its temperature.
        beginning: of a new text.
        rule: the StopRule of each part.
        path: file of the text; one that is there is continued.
        lines: commands as typed.
        show: takes the text that is to be read.
    """
    story = Story(path, beginning)
    story.save()
    say(f"the text is kept in {path}")
    say(HELP)
    show(printable(story.text))
    for line in lines:
        line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # bytes that are no UTF-8
        if line.strip() == "q":
            break
        carry_out(line.rstrip("\n"), session, story, rule, show)


def carry_out(line: str, session, story: Story, rule, show: Callable[[str], None]) -> None:
    """Carry out one command."""
    command, _, rest = line.partition(" ")
    # the model writes
    if line.strip() == "":
        show(write_part(session, story, rule))
    elif command == "r" and not rest:
        tries = story.tries + 1
        if story.drop():
            story.tries = tries
            show(write_part(session, story, rule))
            story.tries = tries
        else:
            say("nothing written yet")
    # the person changes the text
    elif command == "u" and not rest:
        say("removed the last part" if story.drop() else "nothing written yet")
        show(printable(story.parts[-1]))
    elif command == "e" and rest:
        story.drop()
        story.add(rest)
    elif command == "+" and rest:
        story.add(rest)
    # settings, and whatever is no command
    elif command == "t" and is_temperature(rest):
        session.controls = replace(session.controls, temperature=float(rest))
        say(f"temperature {float(rest):g}")
    else:
        say(HELP)


def is_temperature(text: str) -> bool:
    """Tell whether a text is a number from 0 to 100."""
    try:
        return 0 <= float(text) <= 100
    except ValueError:
        return False


def write_part(session, story: Story, rule) -> str:
    """Let the model write the next part, add it to the story and return it as it may be shown."""
    tokenizer = session.tokenizer
    # the number of the part takes the place of the sample's, so that every part has random numbers of its own
    ids = tokenizer.begin(tokenizer.encode(story.text)).tolist()
    (sample,) = session.write_batch(ids, rule, [len(story.parts)], attempt=story.tries)
    part = session.show_new(sample)
    story.add(part)
    return printable(part)
