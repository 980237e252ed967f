"""Bytes and a codec -> text, bad bytes marked and counted: what a file says if it is in that encoding."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from novelgpt.corpus.parsing import char_sizes, has_escapes, is_escape, read_double_byte
from novelgpt.corpus.plausibility import code_points
from novelgpt.messages import EXIT_INPUT, UserError

DOUBLE_BYTE = ("gb18030", "cp950", "big5hkscs")
WIDE = {"utf-16-le": "<u2", "utf-16-be": ">u2", "utf-32-le": "<u4", "utf-32-be": ">u4"}
FAMILY = {"cp950": "big5", "big5hkscs": "big5", "gbk": "gb18030", "gb2312": "gb18030"}
NAMES = {"utf-8": "UTF-8", "gb18030": "GB18030", "big5": "Big5", "mixed": "in any of its encodings"}
FEW_BAD_BYTES = 8
MAX_BAD_SHARE = 0.001
MAX_OFFSETS = 5


@dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Args:
        text: what it says, without byte order mark and bad bytes.
        encoding: utf-8, utf-8-sig, gb18030, big5, utf-16-le, utf-16-be, utf-32-le, utf-32-be, mixed, or as forced.
        reason: one sentence that says why.
        bad_bytes: number of bytes dropped because they are no part of a character.
        bad_offsets: positions of the first of them in the file.
        segments: (first line, last line, encoding) of each part of a mixed file, lines counted from 1.
    """

    text: str
    encoding: str
    reason: str
    bad_bytes: int = 0
    bad_offsets: tuple[int, ...] = ()
    segments: tuple[tuple[int, int, str], ...] = field(default=())


def family(codec: str) -> str:
    """Name the encoding that a codec belongs to: cp950 and big5hkscs are Big5."""
    return FAMILY.get(codec, codec)


def title(codec: str) -> str:
    """Write a codec's name for people.

    >>> title("cp950"), title("utf-16-le")
    ('Big5', 'UTF-16-LE')
    """
    return NAMES.get(family(codec), codec.upper())


def read_as(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode with one codec.

    Returns:
        The text, in which a lone surrogate stands for each bad byte (or bad unit of UTF-16 and UTF-32), and the offsets
        of the bad bytes.
    """
    if codec in WIDE:
        return read_wide(data, codec)
    if codec in DOUBLE_BYTE:
        return read_double_byte(data, codec)
    try:
        return data.decode(codec), []
    except UnicodeError:
        pass
    try:
        text = data.decode(codec, "surrogateescape")
        return text, escape_offsets(text, codec)
    except UnicodeError as problem:
        message = f"--encoding {codec}: the bytes do not fit it at all"
        raise UserError(message, "leave --encoding out, and the encoding is found", EXIT_INPUT) from problem


def read_wide(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode UTF-16 or UTF-32; half a character at the end and lone surrogates are bad bytes."""
    kind = np.dtype(WIDE[codec])
    whole = len(data) // kind.itemsize * kind.itemsize
    if kind.itemsize == 4:
        units = np.frombuffer(data[:whole], kind)
        units = np.where(units > 0x10FFFF, 0xDC80, units).astype("<u4")
        text = units.tobytes().decode("utf-32-le", "surrogatepass")
    else:
        text = data[:whole].decode(codec, "surrogatepass")
    codes = code_points(text)
    bad = np.flatnonzero(is_escape(codes))
    sizes = np.where((codes >= 0x10000) & (kind.itemsize == 2), 4, kind.itemsize)
    places = (np.cumsum(sizes) - sizes)[bad]
    offsets = [int(place) + byte for place in places for byte in range(kind.itemsize)]
    return text + "\udc80" * (len(data) - whole), offsets + list(range(whole, len(data)))


def escape_offsets(text: str, codec: str) -> list[int]:
    """Find the byte positions of the escaped bytes in a surrogateescape reading."""
    if codec == "utf-8":
        codes = code_points(text)
        sizes = char_sizes(codes, codec)
        return (np.cumsum(sizes) - sizes)[is_escape(codes)].tolist()
    sizes = [len(char.encode(codec, "surrogateescape")) for char in text]
    starts = itertools.accumulate(sizes, initial=0)
    return [start for start, char in zip(starts, text, strict=False) if "\ud800" <= char <= "\udfff"]


def drop_escapes(text: str) -> str:
    """Remove the lone surrogates that stand for bad bytes."""
    return text.encode("utf-32-le", "surrogatepass").decode("utf-32-le", "ignore") if has_escapes(text) else text


def refuse_bad_bytes(offsets: Sequence[int], size: int, codec: str, name: str) -> None:
    """Raise when more than 0.1 % of a file (and more than a handful) are bad bytes."""
    if len(offsets) > max(FEW_BAD_BYTES, size * MAX_BAD_SHARE):
        message = f"{name}: {len(offsets):,} of {size:,} bytes are not {title(codec)}, "
        message += f"the first at byte {offsets[0]:,}; expected at most 0.1 %"
        raise UserError(message, f"--encoding {family(codec)} drops them; better get an undamaged file", EXIT_INPUT)
