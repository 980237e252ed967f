"""What a person sees: a command runs on a pseudo-terminal, and a terminal emulator tells what stands on its screen."""

import codecs
import os
import select
import struct
import subprocess
from pathlib import Path

import pyte

LINES = 400  # of the screen, so that nothing scrolls away
PATIENCE = 20  # seconds that a command may say nothing
FAINT, NOT_FAINT, ITALIC, NOT_ITALIC = 2, 22, 3, 23  # numbers of the sequences that change how characters look


class Screen(pyte.Screen):
    """A screen that shows faint characters as italic ones, since pyte knows no faint ones, and drops none.

    Behind a sign without a width that is no mark, such as U+11FD, pyte forgets all that came in the same piece.
    """

    def draw(self, data: str) -> None:
        """Show characters one by one."""
        for sign in data:
            super().draw(sign)

    def select_graphic_rendition(self, *attributes: int, **named) -> None:
        """Change how the next characters look."""
        named_so = {FAINT: ITALIC, NOT_FAINT: NOT_ITALIC}
        super().select_graphic_rendition(*(named_so.get(number, number) for number in attributes), **named)


class Terminal:
    """A terminal of so many columns on which a command runs."""

    def __init__(self, words: list[object], folder: Path, *, columns: int = 80, **environment: str):
        import fcntl
        import pty
        import termios

        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        settings = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": "", **environment}
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = subprocess.Popen(list(map(str, words)), cwd=folder, env=settings, **streams)
        os.close(theirs)
        self.screen, self.encoding = Screen(columns, LINES), settings.get("PYTHONIOENCODING", "utf-8")
        self.stream = pyte.Stream(self.screen)
        self.decoder = codecs.getincrementaldecoder(self.encoding)("replace")

    def read(self) -> bool:
        """Take what the command has written next; False when the last one has left the terminal."""
        assert select.select([self.ours], [], [], PATIENCE)[0], "\n".join(self.lines)
        try:
            data = os.read(self.ours, 4096)
        except OSError:  # Linux says so
            return False
        self.stream.feed(self.decoder.decode(data))
        return bool(data)

    def wait_for(self, text: str) -> None:
        """Read until a text stands on the screen."""
        while text not in "\n".join(self.lines):
            assert self.read(), "\n".join(self.lines)

    def type(self, text: str) -> None:
        """Type a text; a line break is the key Enter, "\\x03" is Ctrl-C."""
        os.write(self.ours, text.encode(self.encoding))

    def hang_up(self) -> int:
        """Close the terminal under the command; return its exit status."""
        os.close(self.ours)
        return self.process.wait(PATIENCE)

    def end(self) -> int:
        """Read to the end and return the exit status."""
        while self.read():
            pass
        os.close(self.ours)
        return self.process.wait(PATIENCE)

    @property
    def cells(self) -> list[list]:
        """The characters of every line with how they look, as long as something stands in them."""
        columns = range(self.screen.columns)
        rows = [[self.screen.buffer[row][column] for column in columns] for row in range(LINES)]
        used = [number + 1 for number, row in enumerate(rows) if any(cell.data.strip() for cell in row)]
        return rows[: max(used, default=0)]

    @property
    def lines(self) -> list[str]:
        """The lines of the screen; a wide character takes two cells, of which the second is empty."""
        return ["".join(cell.data for cell in row).rstrip() for row in self.cells]

    @property
    def faint(self) -> str:
        """The faint characters."""
        return "".join(cell.data for row in self.cells for cell in row if cell.italics).strip()


def screen_of(words: list[object], folder: Path, *, columns: int = 80, **environment: str) -> list[str]:
    """Run a command on a terminal of this many columns; return its lines."""
    terminal = Terminal(words, folder, columns=columns, **environment)
    status = terminal.end()
    assert status == 0, "\n".join(terminal.lines)
    return terminal.lines
