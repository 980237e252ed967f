"""Numbered piece files of token ids, read as one long stream: what training reads.

    tokenized_train_0.npy ... tokenized_train_99.npy   one-dimensional uint16 (uint32 from 65,536 tokens on)
    tokenized_valid_0.npy ...                          the held-out tail, likewise
    manifest.json                                      written last; names every piece with length and sha256

Pieces are cut by tokens, not by documents, so every one is about as long. They are storage only: reading lays them end
to end again, and no token is lost at a border. A set without a valid manifest does not exist. The manifest::

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
import io
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt.files import MANIFEST, MAX_JSON_BYTES, fsync_path, sha256_of, to_bytes, write_text
from novelgpt.messages import EXIT_STATE, UserError, warn

FORMAT = 1  # raised whenever the same input gives other pieces
PIECE_NAME = re.compile(r"tokenized_(train|valid)_\d+\.npy")
BLOCK = 1 << 22  # tokens copied or searched at a time


class TokenStream:
    """A row of token ids in several arrays, read as if it were one.

    Args:
        arrays: one-dimensional, in order, all of one type; memory maps are read only where they are asked.
        dtype: type of the ids; needed only when there is no array.

    >>> stream = TokenStream([np.array([7, 8], np.uint16), np.array([9], np.uint16)])
    >>> len(stream), stream[1:3].tolist(), stream.gather(np.array([0, 1]), 2).tolist()
    (3, [8, 9], [[7, 8], [8, 9]])
    """

    def __init__(self, arrays: Sequence[np.ndarray], dtype: type | np.dtype = np.uint16):
        self.arrays = list(arrays)
        self.dtype = self.arrays[0].dtype if self.arrays else np.dtype(dtype)
        self.ends = np.cumsum([len(array) for array in self.arrays], dtype=np.int64)  # (pieces,)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return the ids of a slice without a step (N,), across borders; like a list it ends where the stream ends."""
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"step {step}, expected a slice without a step")
        return self.copy_span(start, max(start, stop))

    def copy_span(self, start: int, stop: int) -> np.ndarray:
        """Copy the ids from start up to stop (stop - start,), both inside the stream."""
        ids = np.empty(stop - start, self.dtype)

        # from array to array, as far as each reaches
        index, place = int(np.searchsorted(self.ends, start, side="right")), start
        while place < stop:
            array, end = self.arrays[index], min(stop, int(self.ends[index]))
            offset = len(array) - int(self.ends[index])
            ids[place - start : end - start] = array[place + offset : end + offset]
            index, place = index + 1, end
        return ids

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return windows (B, length) that begin at the given places.

        Args:
            starts: int64 (B,); every window lies inside the stream.
            length: tokens of each window.

        Raises:
            IndexError: a window reaches beyond the stream.
        """
        windows = np.empty((len(starts), length), self.dtype)  # (B, length)
        for row, start in enumerate(np.asarray(starts).tolist()):
            if not 0 <= start <= len(self) - length:
                raise IndexError(f"window {start}:{start + length} reaches beyond the stream of {len(self)} tokens")
            windows[row] = self.copy_span(start, start + length)
        return windows

    def find(self, token_id: int) -> np.ndarray:
        """Return the places of a token, int64 (N,); those of [CLS] are where documents begin, and the end."""
        found = [
            start + np.flatnonzero(self[start : start + BLOCK] == token_id) for start in range(0, len(self), BLOCK)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def read(self) -> np.ndarray:
        """Return the whole stream (N,) in memory."""
        return self[:]


@dataclass(frozen=True)
class Pieces:
    """A checked set of pieces.

    Attributes:
        train, valid: the ids laid end to end; valid may be empty.
        manifest: what write_pieces returned.
        folder: where they lie.
    """

    train: TokenStream
    valid: TokenStream
    manifest: dict
    folder: Path = Path()

    def check_fresh(self, expect: Mapping) -> None:
        """Refuse pieces made from something other than expected; `expect` is as for open_pieces."""
        check_fresh(self.folder, self.manifest, expect)

    def command(self, **options: object) -> str:
        """Return the command that writes these pieces again with some options changed."""
        return rebuild_command(self.folder, self.manifest, {"options": options})


def cut_parts(parts: Mapping[str, TokenStream], folder: Path, num_pieces: int) -> list[dict]:
    """Write the pieces of train and valid into a folder and describe each; those of valid are about as long."""
    # as many as asked for of train, and of valid as many of that length as its tokens fill
    train_tokens = len(parts["train"])
    if train_tokens < num_pieces:
        warn(f"--num_pieces {num_pieces}: only {train_tokens} tokens, so {train_tokens} pieces are written")
    pieces = []
    for name, stream in parts.items():
        tokens = len(stream)
        wanted = num_pieces if name == "train" else -(-num_pieces * tokens // train_tokens)
        for number, (start, stop) in enumerate(piece_spans(tokens, wanted)):
            path = folder / f"tokenized_{name}_{number}.npy"
            digest = write_piece(path, stream, start, stop)
            entry = {"name": path.name, "tokens": stop - start, "bytes": path.stat().st_size, "sha256": digest}
            pieces.append(entry)
    return pieces


def piece_spans(tokens: int, num_pieces: int) -> list[tuple[int, int]]:
    """Cut a stream into pieces whose lengths differ by at most one; none is empty.

    >>> piece_spans(7, 3)
    [(0, 2), (2, 4), (4, 7)]
    >>> piece_spans(2, 100)
    [(0, 1), (1, 2)]
    """
    count = min(num_pieces, tokens)
    return [(number * tokens // count, (number + 1) * tokens // count) for number in range(count)]


def npy_header(dtype: np.dtype, length: int) -> bytes:
    """Return the bytes that stand before the ids in a piece."""
    buffer = io.BytesIO()
    description = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def write_piece(path: Path, stream: TokenStream, start: int, stop: int) -> str:
    """Write a stretch of a stream as a .npy file onto the disk and return its SHA-256."""
    # hashed while written, so that nothing is read twice
    little = stream.dtype.newbyteorder("<")
    header = npy_header(little, stop - start)
    digest = hashlib.sha256(header)
    with open(path, "wb") as file:
        file.write(header)
        for place in range(start, stop, BLOCK):
            block = stream[place : min(place + BLOCK, stop)].astype(little, copy=False).data
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def replace_set(folder: Path, hidden: Path, manifest: dict) -> None:
    """Put new pieces in the place of the old: the old manifest goes first, the new one comes last."""
    # without a manifest there is no set: whatever happens from here on, no mixture is read
    (folder / MANIFEST).unlink(missing_ok=True)
    fsync_path(folder)
    for path in find_pieces(folder):
        path.unlink()
    for piece in manifest["pieces"]:
        os.replace(hidden / piece["name"], folder / piece["name"])
    fsync_path(folder)
    write_manifest(folder, manifest)


def find_pieces(folder: Path) -> list[Path]:
    """List the piece files of a folder."""
    return sorted(path for path in folder.iterdir() if PIECE_NAME.fullmatch(path.name))


def open_pieces(folder: str | Path, *, expect: Mapping | None = None, hashes: bool = True) -> Pieces:
    """Open a set of pieces after checking all of it.

    Args:
        folder: where write_pieces wrote.
        expect: what the pieces must have been made from; any of "vocabulary_sha256", "source_sha256", "options" (a
            mapping, of which every entry must agree) and "vocabulary_path" (for the hint only).
        hashes: compare the sha256 of every byte; False compares names, sizes and headers only, for processes whose
            first one has read every byte.

    Raises:
        UserError: no pieces, damaged pieces, or pieces made from something else (each change is named); the hint is the
            command that rebuilds them.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        check_fresh(folder, manifest, expect or {})  # first: stale pieces need not be read
        dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[manifest["dtype"]])
        damage = find_piece_damage(folder, manifest["pieces"], dtype, hashes=hashes)
        streams = {name: map_stream(folder, manifest, name, dtype) for name in ("train", "valid") if not damage}
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        raise damaged(folder, f"{MANIFEST} is not a manifest of pieces ({type(problem).__name__})") from problem
    if damage:
        raise damaged(folder, damage, manifest)
    return Pieces(streams["train"], streams["valid"], manifest, folder)


def find_piece_damage(folder: Path, entries: list[dict], dtype: np.dtype, *, hashes: bool) -> str | None:
    """Say what is wrong with the piece files of a manifest; None when nothing is."""
    # a foreign piece would be read by nobody, but it shows that something went wrong
    names = {entry["name"] for entry in entries}
    for path in find_pieces(folder):
        if path.name not in names:
            return f"{path.name} does not belong to the set"

    # names before files: a forged manifest must not lead out of the folder
    for entry in entries:
        name, path, header = entry["name"], folder / entry["name"], npy_header(dtype, entry["tokens"])
        size = len(header) + entry["tokens"] * dtype.itemsize
        if not PIECE_NAME.fullmatch(name):
            return f"{MANIFEST} names {name!r}, which is no piece"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, expected {size:,}"
        if read_start(path, len(header)) != header:
            return f"{name} does not begin as {entry['tokens']:,} tokens of {dtype.name} in a .npy file"
        if hashes and (found := sha256_of(path)) != entry["sha256"]:
            return f"{name} has changed: its sha256 is {found[:12]}…, expected {entry['sha256'][:12]}…"
    return None


def read_start(path: Path, length: int) -> bytes:
    """Return the first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(length)


def map_stream(folder: Path, manifest: dict, part: str, dtype: np.dtype) -> TokenStream:
    """Map the pieces of one part, in the manifest's order, and compare their total length."""
    names = [entry["name"] for entry in manifest["pieces"] if entry["name"].startswith(f"tokenized_{part}_")]
    stream = TokenStream([np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in names], dtype)
    if len(stream) != manifest[part]["tokens"]:
        raise ValueError(f"{part}: {len(stream)} tokens, expected {manifest[part]['tokens']}")
    return stream


def write_manifest(folder: Path, manifest: Mapping) -> None:
    """Write a manifest atomically."""
    write_text(folder / MANIFEST, manifest_text(manifest))


def manifest_text(manifest: Mapping) -> str:
    """Return a manifest as JSON that ends with the checksum of its own content."""
    body = json.dumps(manifest, ensure_ascii=False, indent=2, allow_nan=False)
    checksum = hashlib.sha256(to_bytes(body)).hexdigest()
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

        # the very bytes that writing it again would give
        whole = to_bytes(manifest_text(manifest)) == raw
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
    """Spell the command that writes a piece set again, as expected now where that is known, else as it was."""
    manifest, expect = manifest or {}, expect or {}
    vocabulary = manifest.get("vocabulary", {}).get("path", "cache/vocab_small.txt")
    paths = {
        "raw_data_path": manifest.get("source", {}).get("path", "data/train.json"),
        "tokenized_data_path": folder,
        "tokenizer_path": expect.get("vocabulary_path", vocabulary),
    }

    # what is expected now goes before what the pieces were made with
    flags = {**paths, **manifest.get("options", {}), **expect.get("options", {})}
    words = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if value is not None)
    return f"python tokenize_corpus.py {words}"


def check_fresh(folder: Path, manifest: Mapping, expect: Mapping) -> None:
    """Refuse pieces made from something else than expected (see open_pieces), naming each difference."""
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
