"""What a person sees: a command runs on a pseudo-terminal, and a terminal emulator tells what stands on its screen."""

import contextlib
import os
import struct
import subprocess
from pathlib import Path

import pyte

LINES = 400  # of the screen, so that nothing scrolls away


def screen_of(words: list[object], folder: Path, *, columns: int = 80, **environment: str) -> list[str]:
    """Run a command on a terminal of this many columns; return its lines, as long as something stands in them."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": "", **environment}
    process = subprocess.Popen(
        list(map(str, words)), cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=settings
    )
    os.close(theirs)
    screen = pyte.Screen(columns, LINES)
    stream = pyte.ByteStream(screen)
    with contextlib.suppress(OSError):  # Linux says so when the last one has left the terminal
        while data := os.read(ours, 4096):
            stream.feed(data)
    os.close(ours)
    assert process.wait() == 0, "\n".join(screen.display)
    # a wide character takes two cells, of which the second is empty
    lines = ["".join(screen.buffer[row][column].data for column in range(columns)).rstrip() for row in range(LINES)]
    return lines[: max((number + 1 for number, line in enumerate(lines) if line), default=0)]
