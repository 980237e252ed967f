"""run.json: what the result of a run depends on, and whether an unfinished run may be resumed with the options of now.

    {"options": every option resolved, "identity": the options below and the hashes of corpus, vocabulary and network,
     "versions": of Python and the packages, "command": the words that started it or null, "total_steps": ...}

An unfinished run is resumed only under the same identity.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import transformers

from novelgpt import __version__
from novelgpt.cli import TrainOptions, names_with
from novelgpt.files import read_json, write_json
from novelgpt.messages import EXIT_STATE, EXIT_USAGE, UserError
from novelgpt.training.lora import lora_identity
from novelgpt.training.run import DROPOUTS, Run

RUN_FILE = "run.json"
CHANGEABLE = names_with(TrainOptions, resume="changeable")  # may differ when a run is resumed
FIXED = names_with(TrainOptions, resume="fixed")  # the position in the run means nothing without them


def identity(run: Run) -> dict:
    """Return what the result of a run depends on, as plain JSON values."""
    options = run.options
    values = asdict(options)
    config = {key: value for key, value in sorted(run.config.items()) if key not in ("vocab_size", *DROPOUTS)}
    return {
        **{name: values[name] for name in CHANGEABLE + FIXED},
        "dropout": [run.config.get(name, 0.1) for name in DROPOUTS],  # 0.1 is GPT-2's own
        "pretrained_model": options.pretrained_model,
        **lora_identity(options.pretrained_model, options.lora_rank, options.lora_alpha, options.lora_dropout),
        "vocabulary": run.tokenizer.fingerprint,
        **run.data.identity(),
        "model_config": config,
    }


def write_run_file(run: Run, command: Sequence[str] | None = None) -> None:
    """Write run.json; `command` is what the run was started with, script first, None where it was no command line."""
    # versions are kept for people; they do not count for the identity
    versions = {
        "novelgpt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    values = {"options": asdict(run.options), "identity": identity(run), "versions": versions}
    words = None if command is None else list(command)
    write_json(run.options.output_path / RUN_FILE, {**values, "command": words, "total_steps": run.total_steps})


def check_identity(run: Run, folder: Path) -> None:
    """Raise when the earlier run in a folder had another identity, with every difference that is not allowed."""
    former = former_identity(folder / RUN_FILE)
    now = json.loads(json.dumps(identity(run)))

    # what --allow_change names must be something that may change at all
    allowed = {name.strip() for name in run.options.allow_change.split(",") if name.strip()}
    if unknown := sorted(allowed - set(CHANGEABLE)):
        message = f"--allow_change: found {unknown[0]!r}, expected some of {', '.join(CHANGEABLE)}"
        raise UserError(message, "--allow_change lr", EXIT_USAGE)

    changed = [name for name in now if now[name] != former.get(name) and name not in allowed]
    if changed:
        lines = [f"{name}: was {format_setting(former.get(name))}, now {format_setting(now[name])}" for name in changed]
        hint = "resume with the former options; or start anew with --resume never, which moves the old run aside"
        if set(changed) <= set(CHANGEABLE):
            hint += f"; or resume with the change: --allow_change {','.join(changed)}"
        message = f"{folder}: holds an unfinished run with other settings\n  " + "\n  ".join(lines)
        raise UserError(message, hint, EXIT_STATE)


def former_identity(path: Path) -> dict:
    """Read the identity in a run.json; an option that it lacks came later and was then at its default."""
    former = read_json(path)
    if not isinstance(former, dict) or not isinstance(former.get("identity"), dict):
        raise UserError(f"{path}: not written by train.py", "start again with --resume never", EXIT_STATE)
    defaults = {name: getattr(TrainOptions(), name) for name in CHANGEABLE}
    fp16 = {"precision": "fp16"} if former.get("options", {}).get("fp16") else {}  # once kept there alone
    return defaults | former["identity"] | fp16


def format_setting(value: object) -> str:
    """Format a setting in at most 60 characters; hashes by their first twelve."""
    text = value[:12] if isinstance(value, str) and len(value) == 64 else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
