"""The whole step from cleaned chapters to pieces, as `tokenize_corpus.py` and `train.py --raw` take it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from novelgpt.corpus.documents import STANDARD_INPUT, find_inputs, read_blocks, read_sources
from novelgpt.corpus.pieces import write_pieces
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.messages import EXIT_USAGE, UserError, progress_bar, say, warn


def tokenize_corpus(
    raw_data_path: str | Path,
    tokenized_data_path: str | Path,
    tokenizer_path: str | Path,
    *,
    num_pieces: int = 100,
    valid_fraction: float = 0.05,
    min_length: int = 0,
    add_tokens: str | None = None,
) -> dict:
    """Read documents, encode them and write them as pieces.

    Args:
        raw_data_path: the corpus, usually data/train.json; any file or folder that read_sources takes.
        tokenized_data_path: folder of the pieces.
        tokenizer_path: a vocabulary file or a folder with one.
        num_pieces: of the training part, from 1 up.
        valid_fraction: share of the tokens held out at the end, from 0 to below 1.
        min_length: characters; shorter documents are left out and counted.
        add_tokens: further tokens of the vocabulary, "[TIL],[WS]"; in the documents they count as tokens.

    Returns:
        The manifest of the pieces.

    Raises:
        UserError: the corpus or the vocabulary cannot be used, or the folder not be written.
    """
    tokenizer = load_tokenizer(tokenizer_path, add_tokens=add_tokens)
    source = {"path": str(raw_data_path), "sha256": source_sha256(raw_data_path)}
    with progress_bar(None, unit="char", description="tokenize") as bar:
        manifest = write_pieces(
            read_corpus(raw_data_path),
            tokenizer,
            tokenized_data_path,
            num_pieces=num_pieces,
            valid_fraction=valid_fraction,
            min_length=min_length,
            source=source,
            vocabulary=describe_vocabulary(tokenizer_path, tokenizer),
            progress=bar.update,
            **({"add_tokens": add_tokens} if add_tokens else {}),
        )
    report(manifest)
    return manifest


def describe_vocabulary(path: str | Path, tokenizer: NovelTokenizer) -> dict:
    """Return what the manifest keeps of a vocabulary."""
    return {
        "path": str(path),
        "sha256": tokenizer.fingerprint,
        "kind": tokenizer.kind,
        "size": tokenizer.vocab_size,
    }


def read_corpus(path: str | Path, *, field: str | None = None) -> Iterator[str]:
    """Yield the documents of a corpus file, or of a folder's files one after the other, and say what was repaired."""
    for source in read_sources([path], field=field):
        if source.repairs:
            warn(f"{source.name}: repaired {', '.join(f'{name} ({count})' for name, count in source.repairs.items())}")
        yield from source.documents


def source_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a corpus: of a file's bytes, or of the names and hashes of a folder's files.

    Raises:
        UserError: nothing there, or standard input, which cannot be compared later.
    """
    if str(path) == STANDARD_INPUT:
        message = "--raw_data_path -: standard input cannot be read again later, expected a file"
        raise UserError(message, "--raw_data_path data/train.json", EXIT_USAGE)
    hashes = {name: hash_file(name) for name in find_inputs([path])}
    if list(hashes) == [str(path)]:
        return hashes[str(path)]
    lines = [f"{Path(name).relative_to(path).as_posix()} {digest}\n" for name, digest in hashes.items()]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def hash_file(name: str) -> str:
    """Return the SHA-256 of what read_blocks yields of a file."""
    digest = hashlib.sha256()
    for block in read_blocks(name):
        digest.update(block)
    return digest.hexdigest()


def expected_state(raw_data_path: str | Path, tokenizer: NovelTokenizer, **options: object) -> dict:
    """Return what `open_pieces(expect=...)` compares; a corpus that is no longer there is not compared.

    Args:
        raw_data_path: the corpus.
        tokenizer: from load_tokenizer.
        options: num_pieces, valid_fraction, min_length and add_tokens as asked for now.
    """
    expect = {"vocabulary_sha256": tokenizer.fingerprint, "options": options}
    if Path(raw_data_path).exists():
        expect["source_sha256"] = source_sha256(raw_data_path)
    return expect


def report(manifest: dict) -> None:
    """Say what became of the corpus."""
    for name in ("train", "valid"):
        counts = manifest[name]
        pieces = sum(entry["name"].startswith(f"tokenized_{name}_") for entry in manifest["pieces"])
        say(
            f"{name}: {counts['documents']:,} documents, {counts['characters']:,} characters, "
            f"{counts['tokens']:,} tokens, {pieces} pieces"
        )
    if manifest["left_out"]["documents"]:
        left = manifest["left_out"]
        warn(
            f"{left['documents']:,} documents with {left['characters']:,} characters left out: empty or shorter than "
            f"--min_length {manifest['options']['min_length']}"
        )
