"""Documents -> one long row of token ids that never has to fit into memory -> a part to train on, a held-out tail.

[CLS] chapter 1 [CLS] chapter 2 … chapter 19 [CLS]        train
[CLS] chapter 20 [CLS]                                    valid: at least valid_fraction of all tokens

The whole step, as `tokenize_corpus.py` and `train.py --raw` take it.
"""

import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from novelgpt import __version__
from novelgpt.corpus.documents import read_corpus, source_sha256
from novelgpt.corpus.pieces.pieces import FORMAT, Pieces, TokenStream, cut_parts, open_pieces, replace_set
from novelgpt.corpus.tokenizers import NovelTokenizer, load_tokenizer
from novelgpt.lock import run_lock
from novelgpt.messages import EXIT_ENVIRONMENT, UserError, progress_bar, say, warn

MAX_OUTSIDE = 0.01  # of the characters, outside the vocabulary without a warning
DEFAULT_SOURCE = "data/train.json"  # of make_vocab.py
SENTENCE_ENDS, CLOSING = ("。", "！", "？", "”", "」", "』"), ("”", "’", "」", "』", "）")


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
    except UserError:  # missing, stale or damaged: all are repaired by writing them again
        sha256 = sha256 or source_sha256(raw_data_path)  # raises where there is nothing
        facts = {"tokenizer_path": tokenizer_path, "sha256": sha256, "settings": settings}
        write_corpus(raw_data_path, tokenized_data_path, tokenizer, **facts)
        return open_pieces(tokenized_data_path)
    say(f"{tokenized_data_path}: up to date")
    warn_of_vocabulary(pieces.manifest)
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
    warn_of_vocabulary(manifest)


def warn_of_vocabulary(manifest: dict) -> None:
    """Warn when more than one character in a hundred is outside the vocabulary, with the commands that mend it."""
    outside = manifest.get("outside_vocabulary", 0)  # pieces of former versions do not say
    characters = manifest["train"]["characters"] + manifest["valid"]["characters"]
    if outside <= MAX_OUTSIDE * characters:
        return
    fate = "lost as [UNK]" if manifest["vocabulary"]["kind"] == "wordpiece" else "written as 2 to 4 bytes each"
    share, source = outside / characters, manifest["source"]["path"]
    warn(f"{outside:,} characters ({share:.1%}) are not in {manifest['vocabulary']['path']}: {fate}")
    path = shlex.quote(fitting_path(source))
    flags = "" if source == DEFAULT_SOURCE else f" --raw_data_path {shlex.quote(source)} --vocab_file {path}"
    say(f"hint: python make_vocab.py{flags}, then this command again with --tokenizer_path {path}")


def fitting_path(source: str) -> str:
    """Name the file of the vocabulary that fits a corpus.

    >>> [fitting_path(path) for path in ("data/train.json", "data/rulin.json", "books/rulin/train.json")]
    ['cache/vocab_novel.txt', 'cache/vocab_rulin.txt', 'books/rulin/vocab.txt']
    """
    if source == DEFAULT_SOURCE:
        return "cache/vocab_novel.txt"
    path = Path(source)
    return path.with_name("vocab.txt").as_posix() if path.stem == "train" else f"cache/vocab_{path.stem}.txt"


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
        num_pieces, valid_fraction, min_length: as of tokenize_corpus; fewer pieces where there are fewer tokens.
        source, vocabulary: facts about the corpus and the vocabulary, "path" and "sha256" among them.
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
                "pieces": cut_parts({name: part.stream for name, part in parts.items()}, hidden, num_pieces),
            }
            replace_set(folder, hidden, manifest)
        except OSError as problem:
            hint = f"free some space or choose another place than {folder}"
            raise UserError(f"{folder}: cannot be written: {problem.strerror}", hint, EXIT_ENVIRONMENT) from problem
        finally:
            encoded = parts = None  # Windows removes no file that is mapped
            shutil.rmtree(hidden, ignore_errors=True)
    return manifest


def remove_hidden(folder: Path) -> None:
    """Delete what killed runs left behind in a folder that is locked now."""
    for path in folder.glob(".tokenized.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class Encoded:
    """All documents as ids end to end, framed by [CLS]."""

    ids: np.ndarray  # (N,)
    starts: np.ndarray  # int64 (documents + 1,); where each document's [CLS] stands, and the last one, N - 1
    characters: np.ndarray  # int64 (documents,)
    left_out: list[int]  # characters of each document that was too short or had no token
    outside: int  # characters that the vocabulary lacks


@dataclass(frozen=True)
class Part:
    """One side of the split: a [CLS] before every document and after the last one; nothing at all if it is empty."""

    stream: TokenStream
    documents: int
    characters: int


def encode_documents(
    documents: Iterable[str],
    tokenizer: NovelTokenizer,
    path: Path,
    *,
    min_length: int,
    progress: Callable[[int], object],
) -> Encoded:
    """Write the ids of all documents end to end into one flat file and map it; report the characters of each."""
    starts, characters, left_out, outside = [0], [], [], 0

    def encode_all() -> Iterator[np.ndarray]:
        nonlocal outside
        for document in documents:
            ids = tokenizer.encode_document(document if len(document) >= min_length else "")  # (N,)
            if len(ids):
                starts.append(starts[-1] + 1 + len(ids))
                characters.append(len(document))
                outside += tokenizer.count_outside(ids)
                yield ids
            else:
                left_out.append(len(document))
            progress(len(document))

    with open(path, "wb") as file:
        for part in tokenizer.frame(encode_all()):
            file.write(part.data)
    if not characters:
        raise no_documents(left_out, min_length)
    ids = np.memmap(path, tokenizer.dtype, mode="r")
    return Encoded(ids, np.array(starts, np.int64), np.array(characters, np.int64), left_out, outside)


def no_documents(lengths: list[int], min_length: int) -> UserError:
    """Say that no document is left, and how long they are."""
    longest = max(lengths, default=0)
    if longest < min_length and longest > 0:
        # a histogram tells what --min_length would leave
        lows = [low for low in (0, 1, 10, 100, 1_000, 10_000, 100_000) if low <= longest]
        highs = [*lows[1:], longest + 1]
        rows = [
            f"  {low:,} to {high - 1:,} characters: {sum(low <= length < high for length in lengths):,}"
            for low, high in zip(lows, highs, strict=True)
        ]
        message = f"--min_length {min_length}: all {len(lengths):,} documents are shorter\n" + "\n".join(rows)
        return UserError(message, f"--min_length {longest // 2}")
    return UserError(f"{len(lengths):,} documents without any text", "python clr_ctrl.py NOVEL.txt")


def hold_out(encoded: Encoded, tokenizer: NovelTokenizer, fraction: float) -> dict[str, Part]:
    """Split off the tail: whole documents from the end until they hold at least a fraction of the tokens.

    Where whole documents would take more than twice that much, or all there are, the first of them is cut: at the end
    of a paragraph, else of a sentence, and the only document of all else anywhere. Something always stays to train on.

    Returns:
        The parts "train" and "valid"; the newline at a cut between paragraphs is the only token left out.
    """
    # the first document of the tail: the one in which the last `target` tokens begin
    total = int(encoded.starts[-1])  # tokens, the last [CLS] not among them
    target = math.ceil(fraction * total)
    if target == 0:
        return join_parts(encoded, tokenizer, len(encoded.characters), None)
    first = int(np.searchsorted(encoded.starts, total - target, side="right")) - 1

    # the whole document, unless that would hold out more than twice as much
    fits = first > 0 and total - encoded.starts[first] <= 2 * target
    cut = None if fits else find_cut(encoded, tokenizer, first, target)
    if first == 0 and cut is None:
        first = 1  # the least that training needs
    if first == len(encoded.characters):
        warn("nothing is held out: the only document has a single token")
    return join_parts(encoded, tokenizer, first, cut)


def find_cut(encoded: Encoded, tokenizer: NovelTokenizer, document: int, target: int) -> tuple[int, int] | None:
    """Choose where a document is cut in two: where its first part ends and its second one begins; None: nowhere."""
    ids, total = encoded.ids, int(encoded.starts[-1])
    start, stop = int(encoded.starts[document]) + 2, int(encoded.starts[document + 1]) - 1
    limit = total - target  # where the last `target` tokens begin
    low = max(start, limit - target)  # a cut before it holds out more than twice as much

    # the last end of a paragraph up to the limit, else of a sentence
    newlines = start + np.flatnonzero(ids[start:stop] == tokenizer.newline_id)
    before = newlines[newlines <= limit]
    if len(before) and before[-1] >= low:
        return int(before[-1]), int(before[-1]) + 1
    ends = sentence_ends(ids[low - 1 : limit + 1], tokenizer)
    if len(ends):
        return low + int(ends[-1]), low + int(ends[-1])

    # else, in the only document, any whole character, or the nearest end of a paragraph
    if len(encoded.characters) == 1:
        place = min(max(limit, start), stop)
        while place > start and ids[place] in tokenizer.byte_ids[0x80:0xC0]:  # inside the bytes of a character
            place -= 1
        return (place, place) if start <= stop else None
    if len(before) or (document == 0 and len(newlines)):
        place = int(before[-1] if len(before) else newlines[0])
        return place, place + 1
    return None


def sentence_ends(ids: np.ndarray, tokenizer: NovelTokenizer) -> np.ndarray:
    """Return the places among ids (N,) after which a sentence has ended, the last one left out."""
    signs = (SENTENCE_ENDS, CLOSING)
    is_end, is_closing = (np.array([token.endswith(some) for token in tokenizer.tokens]) for some in signs)
    return np.flatnonzero(is_end[ids[:-1]] & ~is_closing[ids[1:]])


def join_parts(encoded: Encoded, tokenizer: NovelTokenizer, first: int, cut: tuple[int, int] | None) -> dict[str, Part]:
    """Make train of what lies before a document (or a cut inside it) and valid of the rest, both framed."""
    ids, starts, characters = encoded.ids, encoded.starts, encoded.characters
    before, after = int(characters[:first].sum()), int(characters[first:].sum())
    if cut is not None:
        # the document is counted on both sides, each with its own characters
        end, start = cut
        head = len(tokenizer.decode(ids[starts[first] + 1 : end]))
        train, tail = (TokenStream([*tokenizer.frame([part])]) for part in (ids[1:end], ids[start:-1]))
        valid = Part(tail, len(characters) - first, after - head - (start - end))
        return {"train": Part(train, first + 1, before + head), "valid": valid}
    # the [CLS] at the border ends the one part and begins the other
    train = Part(TokenStream([ids[: starts[first] + 1]]), first, before)
    tail = [ids[starts[first] :]] if first < len(characters) else []
    return {"train": train, "valid": Part(TokenStream(tail, tokenizer.dtype), len(characters) - first, after)}


def count_parts(encoded: Encoded, parts: Mapping[str, Part]) -> dict:
    """Return the counts that the manifest keeps."""
    counts = {
        name: {"documents": part.documents, "characters": part.characters, "tokens": len(part.stream)}
        for name, part in parts.items()
    }
    left_out = {"documents": len(encoded.left_out), "characters": sum(encoded.left_out)}
    return {"dtype": encoded.ids.dtype.name, **counts, "left_out": left_out, "outside_vocabulary": encoded.outside}
