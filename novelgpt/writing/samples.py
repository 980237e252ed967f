"""Finished samples -> `samples.txt` for people and `samples.jsonl` for programs.

    ======================================== SAMPLE 1 ========================================
    萧炎大喝一声……
    ==========================================================================================

Both files are replaced as a whole after every sample, so whatever happens to the run they hold all finished samples and
nothing broken. What is still growing stands in `samples.unfinished.txt`, which goes when the run ends.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from novelgpt.files import move_aside, write_text
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError

BANNER = "=" * 40
CLOSING = "=" * 90
FILE_ENDINGS = (".txt", ".json", ".jsonl")
SAVE_EVERY = 10  # seconds between two savings of growing texts


def format_sample(number: int, text: str) -> str:
    """Return one sample between its banner and its closing line.

    >>> print(format_sample(1, "萧炎").splitlines()[0][38:52])
    == SAMPLE 1 ==
    """
    return f"{BANNER} SAMPLE {number} {BANNER}\n{text}\n{CLOSING}\n"


class SampleFolder:
    """The files of one run's samples.

    Args:
        folder: made if it is not there. Samples of an earlier run are moved aside at the first writing.

    Raises:
        UserError: the folder cannot be made, is a file or named like one.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        if folder.suffix in FILE_ENDINGS and not folder.exists():
            message = f"--save_samples_path {folder}: named like a file, expected a folder"
            raise UserError(message, f"--save_samples_path {folder.parent}", EXIT_USAGE)
        self.text_path, self.lines_path = folder / "samples.txt", folder / "samples.jsonl"
        self.unfinished_path = folder / "samples.unfinished.txt"
        self.text, self.lines, self.number, self.saved = "", "", 0, time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # found out now, not after the first text is written
                pass
            paths = (self.text_path, self.lines_path, self.unfinished_path)
            self.moved = [aside for path in paths if (aside := move_aside(path))]
        except OSError as problem:
            hint = "--save_samples_path mnt/, or another folder that you may write to"
            message = f"--save_samples_path {folder}: {problem.strerror}, expected a folder to write to"
            raise UserError(message, hint, EXIT_ENVIRONMENT) from problem

    def add(self, text: str, facts: dict) -> str:
        """Write one more finished sample to the disk.

        Args:
            text: prefix and continuation as people read them.
            facts: the sample's line in samples.jsonl; number and text are added.

        Returns:
            The sample as it stands in samples.txt.
        """
        self.number += 1
        block = format_sample(self.number, text)
        self.text += block
        self.lines += json.dumps({"number": self.number, **facts, "text": text}, ensure_ascii=False) + "\n"
        write_text(self.lines_path, self.lines)
        write_text(self.text_path, self.text)
        return block

    def keep_unfinished(self, texts: dict[int, Callable[[], str]]) -> None:
        """Save growing texts, by sample number, if the last time is long enough ago."""
        if time.monotonic() - self.saved >= SAVE_EVERY:
            blocks = [format_sample(number, text()) for number, text in sorted(texts.items())]
            write_text(self.unfinished_path, "".join(blocks))
            self.saved = time.monotonic()

    def close(self) -> None:
        """Remove the growing texts, which are finished now."""
        self.unfinished_path.unlink(missing_ok=True)
