"""Cleaned chapters -> pieces: the whole step, as `tokenize_corpus.py` and `train.py --raw` take it."""

from pathlib import Path

from novelgpt.corpus.documents import read_corpus, source_sha256
from novelgpt.corpus.pieces.pieces import Pieces, open_pieces, write_pieces
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.messages import UserError, progress_bar, say, warn


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
        UserError: the corpus or the vocabulary cannot be used, or the folder cannot be written.
    """
    tokenizer = load_tokenizer(tokenizer_path, add_tokens=add_tokens)
    settings = {"num_pieces": num_pieces, "valid_fraction": valid_fraction, "min_length": min_length}
    settings |= {"add_tokens": add_tokens} if add_tokens else {}
    sha256 = source_sha256(raw_data_path)
    facts = {"tokenizer_path": str(tokenizer_path), "sha256": sha256, "settings": settings}
    return write_corpus(raw_data_path, tokenized_data_path, tokenizer, **facts)


def make_pieces(
    raw_data_path: str | Path,
    tokenized_data_path: str | Path,
    tokenizer: NovelTokenizer,
    *,
    tokenizer_path: str,
    **settings: object,
) -> Pieces:
    """Return the pieces of a corpus: those in the folder if they are still of it, else new ones.

    The corpus is hashed once, and every byte of the pieces that are returned is verified once.

    Args:
        raw_data_path, tokenized_data_path: as of tokenize_corpus.
        tokenizer: loaded, with its added tokens.
        tokenizer_path: where it came from, for the manifest.
        settings: num_pieces, valid_fraction, min_length and, if there are any, add_tokens.

    Raises:
        UserError: as of tokenize_corpus.
    """
    # a corpus that is no longer there cannot be compared; pieces that fit in all else may still be used
    sha256 = source_sha256(raw_data_path) if Path(raw_data_path).exists() else None
    expect = {"vocabulary_sha256": tokenizer.fingerprint, "source_sha256": sha256, "options": settings}
    try:
        pieces = open_pieces(tokenized_data_path, expect=expect)
    except UserError:  # missing, stale or damaged: all are repaired by writing them anew
        sha256 = sha256 or source_sha256(raw_data_path)  # raises where there is nothing
        facts = {"tokenizer_path": tokenizer_path, "sha256": sha256, "settings": settings}
        write_corpus(raw_data_path, tokenized_data_path, tokenizer, **facts)
        return open_pieces(tokenized_data_path)
    say(f"{tokenized_data_path}: up to date")
    return pieces


def write_corpus(
    raw_data_path: str | Path,
    folder: str | Path,
    tokenizer: NovelTokenizer,
    *,
    tokenizer_path: str,
    sha256: str,
    settings: dict,
) -> dict:
    """Write the pieces of a corpus whose SHA-256 is known, report what became of it and return their manifest."""
    vocabulary = {
        "path": tokenizer_path,
        "sha256": tokenizer.fingerprint,
        "kind": tokenizer.kind,
        "size": tokenizer.vocab_size,
    }
    # documents stream from the corpus into the pieces; none but the present one is in memory
    with progress_bar(None, unit="char", description="tokenize") as bar:
        manifest = write_pieces(
            read_corpus(raw_data_path),
            tokenizer,
            folder,
            source={"path": str(raw_data_path), "sha256": sha256},
            vocabulary=vocabulary,
            progress=bar.update,
            **settings,
        )
    report_pieces(manifest)
    return manifest


def report_pieces(manifest: dict) -> None:
    """Print what became of the corpus."""
    for name in ("train", "valid"):
        counts = manifest[name]
        pieces = sum(entry["name"].startswith(f"tokenized_{name}_") for entry in manifest["pieces"])
        say(
            f"{name}: {counts['documents']:,} documents, {counts['characters']:,} characters, "
            f"{counts['tokens']:,} tokens, {pieces} pieces"
        )
    # what was left out is always said, since it is text that the network will never see
    if manifest["left_out"]["documents"]:
        left = manifest["left_out"]
        warn(
            f"{left['documents']:,} documents with {left['characters']:,} characters left out: empty or shorter than "
            f"--min_length {manifest['options']['min_length']}"
        )
