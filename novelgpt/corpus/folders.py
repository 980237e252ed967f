"""The files of one book, a chapter each -> its documents in order.

    红楼梦/001.txt 第一回 甄士隐…        the first line is the title where it reads as a heading,
    红楼梦/002 冷子兴演说荣国府.txt      else what the name of the file says

Chapters too short to tell their encoding are decoded together. What cannot be read is left out and named.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

from novelgpt.corpus.chapters import read_heading
from novelgpt.corpus.encodings import Decoded, decode_bytes
from novelgpt.corpus.grouping import title_of_name
from novelgpt.corpus.inputs import kind_of
from novelgpt.corpus.shapes import Fields, Section, join_title
from novelgpt.corpus.sources import SourceFile, read_file
from novelgpt.messages import EXIT_INPUT, UserError

BETWEEN = "\n\x1e\x1e\n"  # between chapters that are decoded together
UNICODE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16 and UTF-32
MAX_OFFSETS = 5  # bad bytes reported with their places


class Shelf(Protocol):
    """A folder or an archive."""

    def read(self, path: str) -> bytes:
        """Return the bytes of a file."""


def read_chapters(shelf: Shelf, names: Sequence[str], fields: Fields, encoding: str | None) -> SourceFile:
    """Read the files of one book; places in it count through all of them.

    Args:
        shelf: where they are read from.
        names: their paths there, in order.
        fields: the name of the book, and the keys or columns to take.
        encoding: forced encoding; None detects it.

    Raises:
        UserError: none of them can be read.
    """
    parts: dict[str, bytes] = {}
    left_out: list[str] = []
    for name in names:
        path = f"{fields.name}/{name}"
        try:
            if (data := shelf.read(name)).strip():
                parts[name] = data
            else:
                left_out.append(f"{path}: empty, expected a chapter")
        except UserError as problem:
            left_out.append(problem.message)

    together = decode_together(parts, fields.name) if encoding is None else {}
    sources: list[SourceFile] = []
    sizes: list[int] = []  # bytes
    for name, data in parts.items():
        own = replace(fields, name=f"{fields.name}/{name}")
        try:
            source = read_file(data, kind_of(name) or "txt", own, encoding, together.get(name))
            sources.append(with_title(source, name) if source.kind == "txt" else source)
            sizes.append(len(data))
        except UserError as problem:
            left_out.append(problem.message)
    if not sources:
        raise UserError(left_out[0], f"give another folder than {fields.name}", EXIT_INPUT)
    return bind(sources, sizes, fields.name, left_out)


def decode_together(parts: dict[str, bytes], name: str) -> dict[str, Decoded]:
    """Decode the texts that are in no Unicode as one, which tells their encoding better; by name.

    Returns:
        Nothing for a file that is decoded on its own: in Unicode, or where together they cannot be read.
    """
    names = [part for part, data in parts.items() if kind_of(part) in ("txt", None) and not is_unicode(data)]
    if len(names) < 2:
        return {}
    try:
        whole = decode_bytes(BETWEEN.encode().join(parts[part] for part in names), name=name)
    except UserError:
        return {}
    texts = whole.text.split(BETWEEN)
    if len(texts) != len(names):
        return {}
    decoded = [Decoded(text, whole.encoding, whole.reason) for text in texts]
    # places in all of them become places in one
    starts = [0, *accumulate(len(parts[part]) + len(BETWEEN) for part in names)]  # bytes
    for offset in whole.bad_offsets:
        index = bisect_right(starts, offset) - 1
        places = (*decoded[index].bad_offsets, offset - starts[index])
        decoded[index] = replace(decoded[index], bad_offsets=places)
    first = next((index for index, one in enumerate(decoded) if one.bad_offsets), 0)
    decoded[first] = replace(decoded[first], bad_bytes=whole.bad_bytes)
    starts = [0, *accumulate(text.count("\n") + BETWEEN.count("\n") for text in texts)]  # lines
    for line in whole.torn_lines:
        index = bisect_right(starts, line - 1) - 1
        decoded[index] = replace(decoded[index], torn_lines=(*decoded[index].torn_lines, line - starts[index]))
    return dict(zip(names, decoded, strict=True))


def is_unicode(data: bytes) -> bool:
    """Tell whether bytes are UTF-8 without a fault, or UTF-16 or UTF-32 with a mark."""
    try:
        return data.startswith(UNICODE_MARKS) or bool(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def with_title(source: SourceFile, name: str) -> SourceFile:
    """Give a chapter in plain text its title: its first line where that is a heading, else by the file's name."""
    (text,) = source.documents
    first = next(filter(None, map(str.strip, text.split("\n"))), "")
    title = first if read_heading(first) else title_of_name(name)
    section = join_title(Section(title, text))
    return replace(source, documents=[section.text], titles=[section.title])


def bind(sources: Sequence[SourceFile], sizes: Sequence[int], name: str, left_out: list[str]) -> SourceFile:
    """Put the chapters of a book together; sizes: of their files in bytes."""
    repairs: Counter = Counter()
    offsets, torn = [], []
    before = lines = 0  # bytes and lines of the chapters so far
    for source, size in zip(sources, sizes, strict=True):
        repairs.update(source.repairs)
        offsets += [before + offset for offset in source.decoded.bad_offsets]
        torn += [lines + line for line in source.decoded.torn_lines]
        before += size
        lines += sum(text.count("\n") + 1 for text in source.documents)
    encodings = sorted({source.decoded.encoding for source in sources})
    is_mixed = len(encodings) > 1
    decoded = replace(
        sources[0].decoded,
        text="",
        encoding="mixed" if is_mixed else encodings[0],
        reason=f"its files are in {' and '.join(encodings)}" if is_mixed else sources[0].decoded.reason,
        bad_bytes=sum(source.decoded.bad_bytes for source in sources),
        bad_offsets=tuple(offsets[:MAX_OFFSETS]),
        segments=(),
        torn_lines=tuple(torn),
    )
    documents = [text for source in sources for text in source.documents]
    titles = [title for source in sources for title in source.titles]
    return SourceFile(documents, "folder", decoded, dict(repairs), name, titles, left_out=left_out)
