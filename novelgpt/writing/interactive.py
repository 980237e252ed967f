"""Writing by turns: the model goes on, the person keeps, rewrites, undoes, edits; the text lives in a file."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from novelgpt.files import write_text
from novelgpt.messages import EXIT_INPUT, UserError, printable, say, warn
from novelgpt.writing.session import Session

HELP = """[Enter] go on    r rewrite the last part    u undo    e TEXT put TEXT in its place    t 0.8 temperature
+ TEXT add TEXT of your own    q quit"""
STORY = "story.txt"


class Story:
    """A text in parts, saved after every change.

    Args:
        path: its file. A text that is already there is the first part.
        prefix: the first part otherwise.
    """

    def __init__(self, path: Path, prefix: str):
        self.path = path
        self.parts = [read_story(path) if path.exists() else prefix]
        self.tries = 0  # rewritings of the part that comes next

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
        """Take the last part off; False when only the beginning is left."""
        if len(self.parts) == 1:
            return False
        self.parts.pop()
        self.save()
        return True


def read_story(path: Path) -> str:
    """Read a text that is to be gone on with.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        message = f"{path}: not UTF-8, byte {problem.start:,} is {problem.object[problem.start]:#04x}"
        moved = path.with_name("moved.txt")
        hint = f"move it away; its text, in any encoding, may be the beginning: --prefix_file {moved}"
        raise UserError(message, hint, EXIT_INPUT) from problem


def write_by_turns(session: Session, prefix: str, lines: Iterable[str], show: Callable[[str], None]) -> Path:
    """Obey commands until they end.

    Args:
        session: the model.
        prefix: beginning of a new text; marks count in it.
        lines: commands as typed.
        show: takes the text that is to be read.

    Returns:
        The file with the text.
    """
    tokenizer, options = session.tokenizer, session.options
    ids = tokenizer.encode_prefix(prefix)
    session.plan = session.plan_after(ids)
    path = Path(options.save_samples_path) / STORY
    if options.prefix_file and path.exists():
        warn(f"--prefix_file {options.prefix_file}: not used, since {path} is gone on with; move it away to begin anew")
    story = Story(path, tokenizer.show(ids))
    story.save()
    say(f"the text is kept in {story.path}")
    say(HELP)
    show(printable(story.text))
    for line in lines:
        line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # bytes that are no UTF-8
        if line.strip() == "q":
            break
        obey(session, story, line.rstrip("\n"), show)
    return story.path


def obey(session: Session, story: Story, line: str, show: Callable[[str], None]) -> None:
    """Carry out one command."""
    command, _, rest = line.partition(" ")
    if line.strip() == "":
        go_on(session, story, show)
    elif command == "r" and not rest:
        tries = story.tries + 1
        if story.drop():
            story.tries = tries
            go_on(session, story, show)
            story.tries = tries
        else:
            say("nothing written yet")
    elif command == "u" and not rest:
        say("took the last part off" if story.drop() else "nothing written yet")
        show(printable(story.parts[-1]))
    elif command == "e" and rest:
        story.drop()
        story.add(rest)
    elif command == "+" and rest:
        story.add(rest)
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


def go_on(session: Session, story: Story, show: Callable[[str], None]) -> None:
    """Let the model write the next part."""
    tokenizer = session.tokenizer
    ids = tokenizer.begin(tokenizer.encode(story.text)).tolist()
    (sample,) = session.write_batch(ids, [len(story.parts)], attempt=story.tries)
    part = session.new_text_of(sample)
    story.add(part)
    show(printable(part))
