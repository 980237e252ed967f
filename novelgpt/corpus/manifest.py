"""The manifest of a piece set: what it was made from, and whether that still holds.

    {"format": 1, "version": "0.1.0",
     "source": {"path": ..., "sha256": ...}, "vocabulary": {"path": ..., "sha256": ..., "kind": ..., "size": ...},
     "options": {"num_pieces": 100, "valid_fraction": 0.05, "min_length": 0},
     "dtype": "uint16", "train": {"documents": ..., "characters": ..., "tokens": ...}, "valid": {...},
     "left_out": {"documents": ..., "characters": ...},
     "pieces": [{"name": "tokenized_train_0.npy", "tokens": ..., "bytes": ..., "sha256": ...}, ...],
     "checksum": sha256 of all the above}

Its text is a function of its content, so a single changed byte of it is noticed as well.
"""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from novelgpt.files import MANIFEST, MAX_JSON_BYTES, write_text
from novelgpt.messages import EXIT_STATE, UserError

FORMAT = 1  # raised whenever the same input gives other pieces


def write_manifest(folder: Path, manifest: Mapping) -> None:
    """Write a manifest atomically."""
    write_text(folder / MANIFEST, manifest_text(manifest))


def manifest_text(manifest: Mapping) -> str:
    """Return a manifest as JSON that ends with the checksum of its own content."""
    body = json.dumps(manifest, ensure_ascii=False, indent=2, allow_nan=False)
    checksum = hashlib.sha256(body.encode("utf-8")).hexdigest()
    return json.dumps({**manifest, "checksum": checksum}, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> dict:
    """Read a manifest, without its checksum.

    Raises:
        UserError: missing, changed in any byte, or of another version of this program.
    """
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_JSON_BYTES else b""
    except (FileNotFoundError, NotADirectoryError) as problem:
        message = f"{folder}: no pieces here ({MANIFEST} is missing)"
        raise UserError(message, rebuild_command(folder), EXIT_STATE) from problem
    except OSError as problem:
        raise damaged(folder, f"{MANIFEST} cannot be read: {problem.strerror}") from problem
    try:
        manifest = json.loads(raw)
        del manifest["checksum"]
        whole = manifest_text(manifest).encode("utf-8") == raw
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise damaged(folder, f"{MANIFEST} is not a manifest of pieces") from problem
    if not whole:
        raise damaged(folder, f"{MANIFEST} has changed: its checksum differs")
    if manifest.get("format") != FORMAT:
        raise damaged(folder, f"{MANIFEST} has format {manifest.get('format')}, expected {FORMAT}", manifest)
    return manifest


def damaged(folder: Path, what: str, manifest: Mapping | None = None) -> UserError:
    """Say what is wrong with a piece set and how to rebuild it."""
    return UserError(f"{folder}: {what}", rebuild_command(folder, manifest), EXIT_STATE)


def rebuild_command(folder: Path, manifest: Mapping | None = None, expect: Mapping | None = None) -> str:
    """Spell the command that writes a piece set anew, as expected now where that is known, else as it was."""
    manifest, expect = manifest or {}, expect or {}
    vocabulary = manifest.get("vocabulary", {}).get("path", "cache/vocab_small.txt")
    paths = {
        "raw_data_path": manifest.get("source", {}).get("path", "data/train.json"),
        "tokenized_data_path": folder,
        "tokenizer_path": expect.get("vocabulary_path", vocabulary),
    }
    flags = {**paths, **manifest.get("options", {}), **expect.get("options", {})}
    words = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if value is not None)
    return f"python tokenize_corpus.py {words}\n(or add --raw to the python train.py command)"


def check_fresh(folder: Path, manifest: Mapping, expect: Mapping) -> None:
    """Refuse pieces that were made from something else than expected, naming each difference.

    Args:
        folder: of the pieces, for the message.
        manifest: of the pieces.
        expect: any of "vocabulary_sha256", "vocabulary_path" (for the hint), "source_sha256" and "options".
    """
    changes = list(find_changes(manifest, expect))
    if changes:
        message = f"{folder}: the pieces are stale\n" + "\n".join(f"  {change}" for change in changes)
        raise UserError(message, rebuild_command(folder, manifest, expect), EXIT_STATE)


def find_changes(manifest: Mapping, expect: Mapping) -> Iterator[str]:
    """Yield one line for each thing that is not as expected.

    >>> list(find_changes({"options": {"min_length": 0}}, {"options": {"min_length": 128}}))
    ['min_length: made with 0, now 128']
    """
    for word, name in (("vocabulary", "vocabulary"), ("corpus", "source")):
        made, now = manifest.get(name, {}).get("sha256"), expect.get(f"{name}_sha256")
        if now is not None and made != now:
            yield f"{word}: made from sha256 {str(made)[:12]}…, now {now[:12]}…"
    for name, value in expect.get("options", {}).items():
        made = manifest.get("options", {}).get(name)
        if made != value:
            yield f"{name}: made with {made}, now {value}"
