"""The log of a run -> its page."""

from pathlib import Path

from novelgpt.files import write_text


def write_training_page(run_dir: Path) -> None:
    """Write the page of a run into its folder."""
    write_text(run_dir / "training.html", (run_dir / "log.jsonl").read_text(encoding="utf-8"))
