"""Write docs/RELIABILITY.md from what the sweeps noted.

python tests/reliability/report.py results.jsonl docs/RELIABILITY.md
python tests/reliability/report.py results.jsonl page.md
"""

import datetime
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

HEAD = """# What a run survives

Written by `make reliability`; no figure here was typed by hand. Each line is a promise, how many cases ran, in how many
it held, and the sweep that tries it.

A trial of a kill, stop, full disk or resume is a real `train.py` (dropout 0.1, micro-batches, evaluations, samples and
checkpoints inside, several epochs), disturbed and then started again with the same command; after that every file of
its folder is compared with those of a run that was left alone: weights, optimizer, state, models and log, of which
only what a clock tells may differ, and that the run went on (`resume`). `os.fsync` does nothing in these trials: a kill
loses nothing that was written. A power failure is not simulated.

| promise | cases | held | figure | test |
|---|---:|---:|---|---|
"""


def read_results(path: Path) -> list[dict]:
    """Read what the ledger wrote; the later entry of a promise counts."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({entry["promise"]: entry for entry in entries}.values())


def table_line(entry: dict) -> str:
    """Return one line of the table.

    >>> table_line({"promise": "p", "cases": 1000, "held": 999, "figure": "", "test": "tests/reliability/test_a.py::t"})
    '| p | 1,000 | **999** |  | `test_a.py::t` |'
    """
    held = f"{entry['held']:,}" if entry["held"] == entry["cases"] else f"**{entry['held']:,}**"
    test = entry["test"].removeprefix("tests/reliability/")
    return f"| {entry['promise']} | {entry['cases']:,} | {held} | {entry['figure']} | `{test}` |"


def machine_words() -> str:
    """Say on what the sweeps ran."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "safetensors"))
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"{system}, Python {platform.python_version()}, {packages}"


def main(argv: list[str]) -> int:
    """Write the page; return 1 when something did not hold."""
    results, page = map(Path, argv)
    entries = sorted(read_results(results), key=lambda entry: entry["test"])
    cases, held = (sum(entry[key] for entry in entries) for key in ("cases", "held"))
    seconds = sum(entry["seconds"] for entry in entries)
    size = os.environ.get("RELIABILITY", "smoke")
    foot = f"\n{held:,} of {cases:,} cases held. Size `{size}`, {datetime.date.today()}, {seconds / 60:.0f} minutes of "
    foot += f"trials on {machine_words()}.\n"
    page.write_text(HEAD + "\n".join(map(table_line, entries)) + "\n" + foot, encoding="utf-8")
    return int(held != cases)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
