"""Writing by turns: the model continues, the person keeps, rewrites, undoes, adds; the text lives in a file.

`story.txt` is the text, saved after every change; `story.json` tells whose it is, so that a model of another book does
not go on with it. A story that gives way is moved aside, to story.1.txt, story.2.txt, …
"""

import re
import signal
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from novelgpt.files import move_aside, read_json, write_json, write_text
from novelgpt.messages import EXIT_DONE, EXIT_HANGUP, EXIT_INPUT, EXIT_PIPE, UserError, say, warn
from novelgpt.writing.terminal import Growing, Screen, StopSignals

STORY, FACTS = "story.txt", "story.json"  # in the folder of --save_samples_path
KEYS_ALONE, KEYS_WITH_TEXT = ("r", "u", "q", "?", "n"), ("e", "t", "+")
WORDS = {"quit": "q", "exit": "q", "help": "?"}


class Story:
    """A text in parts, saved after every change.

    Args:
        path: its file.
        text: the first part.
    """

    def __init__(self, path: Path, text: str):
        self.path, self.parts = path, [text]
        self.tries = 0  # of the part that comes next, beside the first one

    @property
    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.parts)

    def save(self) -> None:
        """Write the text to its file."""
        write_text(self.path, self.text)

    def keep(self) -> None:
        """Save the text; where the disk is full it waits for the next time."""
        try:
            self.save()
        except UserError as problem:
            warn(f"{problem.message}; free some space: the whole text is saved with the next change, or by q")

    def add(self, part: str, *, is_written: bool = False) -> None:
        """Append a part; is_written: by the model, of which the file says nothing."""
        self.parts.append(part)
        self.tries = 0
        self.keep()

    def drop(self) -> bool:
        """Remove the last part; False when only the beginning is left."""
        if len(self.parts) == 1:
            return False
        self.parts.pop()
        self.keep()
        return True


def open_story(folder: str | Path, beginning: str, facts: dict, *, is_new: bool) -> Story:
    """Return the story to go on with, or a new one; one that gives way is moved aside and said.

    Args:
        folder: where it is kept.
        beginning: of a new story.
        facts: whose story it is: "model", its folder, and "corpus", the hash of its book or None.
        is_new: begin anew whatever is there.

    Raises:
        UserError: the story is not UTF-8, or the folder cannot be written to.
    """
    path, facts_path = Path(folder) / STORY, Path(folder) / FACTS
    former = read_json(facts_path) if facts_path.exists() else None
    is_other = path.exists() and is_of_another(former, facts)
    if path.exists() and not is_new and not is_other:
        story = Story(path, read_story(path))
        say(f"going on with {path}, {len(story.text):,} characters; --prefix TEXT begins a new story")
    else:
        if is_other:
            warn(f"{path} is a story of another book, by {former.get('model')}")
        if aside := move_aside(path):
            say(f"the former story was moved to {aside}; --prefix_file {aside} goes on with it")
        story = Story(path, beginning)
        say(f"a new story, kept in {path}")
    story.save()
    write_json(facts_path, facts)
    return story


def is_of_another(former: dict | None, facts: dict) -> bool:
    """Tell whether a story was written with another book, or, where a book is not known, with another model.

    >>> is_of_another({"model": "a", "corpus": "12"}, {"model": "b", "corpus": "12"})
    False
    """
    if not isinstance(former, dict):
        return False
    name = "corpus" if former.get("corpus") and facts["corpus"] else "model"
    return former.get(name) != facts[name]


def read_story(path: Path) -> str:
    """Read a text that is to be continued; one that is not UTF-8 is refused."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        message = f"{path}: not UTF-8, byte {problem.start:,} is {problem.object[problem.start]:#04x}"
        moved = path.with_name("moved.txt")
        hint = f"move it away; its text, in any encoding, may be the beginning: --prefix_file {moved}"
        raise UserError(message, hint, EXIT_INPUT) from problem


def say_keys() -> None:
    """Say what may be typed."""
    say("""Enter    the model goes on (Ctrl-C stops it and keeps what it has written)
r        write the last part anew              u     undo the last part
TEXT     add text of your own                  n     begin a new paragraph
+ r      add what is also a key                t 0.8 temperature, lower is safer
e TEXT   put text in place of the last part    q     quit; the story is kept
?        these keys""")


def write_by_turns(session, story: Story, rule, lines: TextIO) -> int:
    """Carry out what is typed until the end; return the exit status.

    Args:
        session: the Session that writes; the key t changes its temperature.
        story: the text.
        rule: the StopRule of each part.
        lines: what is typed; on a terminal a sign says that it waits for more.

    Raises:
        KeyboardInterrupt: Ctrl-C while it waits.
    """
    screen = Screen()
    say_keys()
    screen.print(screen.mark_prefix(story.text) + "\n")
    for line in read_lines(lines, screen):
        key, text = read_key(line)
        if key == "q":
            story.save()
            break
        with StopSignals() as stop:
            session.is_stopped = stop.is_set
            carry_out(key, text, session, story, rule, screen)
        # Ctrl-C has ended a part, and the person goes on; whatever else came ends the writing
        if stop.is_set() and stop.number != signal.SIGINT:
            return stop.status
        if screen.problem:
            return EXIT_PIPE if screen.is_reader_gone else EXIT_HANGUP
    return EXIT_DONE


def read_lines(lines: TextIO, screen: Screen) -> Iterator[str]:
    """Yield the lines as they are typed."""
    if hasattr(lines, "reconfigure"):
        lines.reconfigure(errors="surrogateescape")  # bytes of another encoding end no evening
    is_typed = getattr(lines, "isatty", bool)() and sys.stdout.isatty()
    screen.print("> " if is_typed else "")
    for line in lines:
        yield line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rstrip("\r\n")
        screen.print("> " if is_typed else "")


def read_key(line: str) -> tuple[str, str]:
    """Return the key of a typed line, empty for plain text, and the text; full-width keys and capitals count too.

    >>> read_key("Ｒ"), read_key("ｔ　0.5"), read_key("那大虫"), read_key("+ r"), read_key("quit"), read_key("t0.8")
    (('r', ''), ('t', '0.5'), ('', '那大虫'), ('+', 'r'), ('q', ''), ('t', '0.8'))
    """
    whole = line.strip()
    plain = unicodedata.normalize("NFKC", whole).lower()
    if plain in WORDS:
        return WORDS[plain], ""
    if re.fullmatch(r"t[\d.]+", plain):
        return "t", plain[1:]
    key, space = (unicodedata.normalize("NFKC", char).lower() for char in (whole[:1], whole[1:2]))
    is_alone = key in KEYS_ALONE and len(whole) == 1
    if is_alone or (key in KEYS_WITH_TEXT and space in ("", " ")):
        return key, whole[2:]
    return "", line if whole else ""


def carry_out(key: str, text: str, session, story: Story, rule, screen: Screen) -> None:
    """Do what a key asks for, from read_key."""
    # the model writes
    if not key and not text:
        write_part(session, story, rule, screen)
    elif key == "r":
        tries = story.tries + 1
        if story.drop():
            story.tries = tries
            write_part(session, story, rule, screen)
            story.tries = tries
        else:
            say("nothing written yet")
    # the person changes the text
    elif key == "u":
        say("the last part is undone; the text ends now:" if story.drop() else "nothing to undo; the text begins:")
        screen.print(screen.mark_prefix(story.parts[-1]) + "\n")
    elif key == "e" and text:
        say("the last part is replaced" if story.drop() else "added to the beginning")
        story.add(text)
    elif key == "n":
        story.add("\n")
        say("a new paragraph begins; type its text, or Enter lets the model go on")
    elif key in ("", "+") and text:
        story.add(text)
        say("added; Enter lets the model go on")
    # settings, and keys that lack something
    elif key == "t" and is_temperature(text):
        session.controls = replace(session.controls, temperature=float(text))
        say(f"temperature {float(text):g}")
    elif key == "t":
        say("t takes a number from 0 to 100, for example: t 0.8")
    elif key == "?":
        say_keys()
    else:
        say(f"{key} takes a text, for example: {key} 她走了。")


def is_temperature(text: str) -> bool:
    """Tell whether a text is a number from 0 to 100."""
    try:
        return 0 <= float(text) <= 100
    except ValueError:
        return False


def write_part(session, story: Story, rule, screen: Screen) -> None:
    """Let the model write the next part, shown as it grows, and add it to the story."""
    tokenizer, growing = session.tokenizer, Growing(session.tokenizer)
    # the number of the part takes the place of the sample's, so that every part has random numbers of its own
    ids, number = tokenizer.begin(tokenizer.encode(story.text)).tolist(), len(story.parts)
    for (sample,) in session.grow_batch(ids, rule, [number], attempt=story.tries, check_every=1):
        screen.print(growing.push(sample))
    screen.print("\n")
    part = session.show_new(sample)
    if growing.count > len(sample.ids):  # a search for an end that found none, or a loop
        say(f"the part ends with “{part[-10:]}”; what was shown behind that is left out")
    story.add(part, is_written=True)
