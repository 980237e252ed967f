"""Documents -> numbered piece files and back: what training reads.

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
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt import __version__
from novelgpt.corpus.pieces.stream import Encoded, Part, TokenStream, encode_documents, hold_out
from novelgpt.corpus.tokenizers import NovelTokenizer
from novelgpt.files import MANIFEST, MAX_JSON_BYTES, fsync_path, sha256_of, write_text
from novelgpt.lock import run_lock
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_STATE, UserError, warn

FORMAT = 1  # raised whenever the same input gives other pieces
PIECE_NAME = re.compile(r"tokenized_(train|valid)_\d+\.npy")
COPY_BLOCK = 1 << 22  # tokens copied at a time


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


def write_pieces(
    documents: Iterable[str],
    tokenizer: NovelTokenizer,
    folder: str | Path,
    *,
    num_pieces: int = 100,
    valid_fraction: float = 0.05,
    min_length: int = 0,
    source: dict,
    vocabulary: dict,
    progress: Callable[[int], object] = lambda characters: None,
    **options: object,
) -> dict:
    """Encode documents and write them as numbered pieces; a former set in the folder is replaced.

    A kill in between leaves the old set or none, never a mixture.

    Args:
        documents: chapters in their order; read once, so that they may come from a generator.
        tokenizer: from load_tokenizer.
        folder: made if missing; files in it that are no pieces stay.
        num_pieces: of the training part, from 1 up; fewer are written when there are fewer tokens.
        valid_fraction: share of the tokens to hold out at the end, from 0 to below 1.
        min_length: leave out documents of fewer characters.
        source: facts about the corpus, its "path" and "sha256" among them.
        vocabulary: facts about the vocabulary, its "path" and "sha256" among them.
        progress: called with the number of characters of each document done.
        options: further options that the pieces depend on, recorded in the manifest.

    Returns:
        The manifest.

    Raises:
        UserError: no document is long enough, or the folder cannot be written.
    """
    folder = Path(folder)
    settings = {"num_pieces": num_pieces, "valid_fraction": valid_fraction, "min_length": min_length, **options}
    with run_lock(folder, flag="--tokenized_data_path"):
        hidden = folder / f".tokenized.{os.getpid()}.tmp"
        try:
            remove_hidden(folder)  # all is written into a hidden folder, so that a kill leaves the old set untouched
            hidden.mkdir()
            encoded = encode_documents(documents, tokenizer, hidden / "ids", min_length=min_length, progress=progress)
            parts = hold_out(encoded, tokenizer, valid_fraction)
            manifest = {
                "format": FORMAT,
                "version": __version__,
                "source": source,
                "vocabulary": vocabulary,
                "options": settings,
                **count_parts(encoded, parts),
                "pieces": cut_parts(parts, hidden, num_pieces),
            }
            replace_set(folder, hidden, manifest)
        except OSError as problem:
            hint = f"free some space or choose another place than {folder}"
            raise UserError(f"{folder}: cannot be written: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return manifest


def remove_hidden(folder: Path) -> None:
    """Delete what killed runs left behind in a folder that is locked now."""
    for path in folder.glob(".tokenized.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def count_parts(encoded: Encoded, parts: Mapping[str, Part]) -> dict:
    """Return the counts that the manifest keeps."""
    counts = {
        name: {"documents": part.documents, "characters": part.characters, "tokens": len(part.stream)}
        for name, part in parts.items()
    }
    left_out = {"documents": len(encoded.left_out), "characters": sum(encoded.left_out)}
    return {"dtype": encoded.ids.dtype.name, **counts, "left_out": left_out}


def cut_parts(parts: Mapping[str, Part], folder: Path, num_pieces: int) -> list[dict]:
    """Write the pieces of train and valid into a folder and describe each; those of valid are about as long."""
    # as many as asked for of train, and of valid as many of that length as its tokens fill
    train_tokens = len(parts["train"].stream)
    if train_tokens < num_pieces:
        warn(f"--num_pieces {num_pieces}: only {train_tokens} tokens, so {train_tokens} pieces are written")
    pieces = []
    for name, part in parts.items():
        tokens = len(part.stream)
        wanted = num_pieces if name == "train" else -(-num_pieces * tokens // train_tokens)
        for number, (start, stop) in enumerate(piece_spans(tokens, wanted)):
            path = folder / f"tokenized_{name}_{number}.npy"
            digest = write_piece(path, part.stream, start, stop)
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
        for place in range(start, stop, COPY_BLOCK):
            block = stream[place : min(place + COPY_BLOCK, stop)].astype(little, copy=False).data
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

        # the very bytes that writing it again would give
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

    # what is expected now goes before what the pieces were made with
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
