"""Bytes and one encoding -> text, with a mark for every bad byte; damaged double-byte text is repaired on the way.

A lost or changed byte shifts the pairing of all double-byte characters after it, often without an undecodable byte.
A faulty line is therefore parsed by dynamic programming over its bytes: each step takes one ASCII byte, one character
of two or four bytes, or one bad byte, and the parse with the largest sum of log-probabilities wins::

    bytes    41 B5 | B5 C0 | CC EC ...    the first byte of 说 (CB B5) became 41
    plain    A 档 捞 ...                  a shift turns the whole rest of the line into other characters
    parsed   A, one bad byte, 道 天 ...

Until drop_bad_bytes is called, a lone surrogate stands in the text for each bad byte.
"""

import codecs
import contextlib

import numpy as np

from novelgpt.corpus.encodings import likelihood
from novelgpt.corpus.encodings.likelihood import BAD_BYTE, nats_of, score, sliding_sums, unicode_codes

DOUBLE_BYTE = ("gb18030", "cp950", "big5hkscs")
FAMILIES = {"cp950": "big5", "big5hkscs": "big5", "gbk": "gb18030", "gb2312": "gb18030"}
DISPLAY_NAMES = {
    "utf-8": "UTF-8",
    "gb18030": "GB18030",
    "big5": "Big5",
    "cp1252": "Windows-1252",
    "mixed": "in any of its encodings",
}

QUAD_NATS = -17.0  # a four-byte character of GB18030
CUT_NATS = -8.0  # an unfinished character at the end of the file, where downloads stop
AFTER_ASCII = 10.0  # nats: the second byte of a character whose first byte became ASCII is likelier bad than others
AFTER_BAD = 10.0  # nats: damage comes in runs
SMALL_FILE = 1 << 14  # bytes; a file up to this size has every line parsed
SECTION = 1 << 12  # bytes; a longer line is parsed section by section
OVERLAP = 64  # bytes before the end of a section that the next one parses again
NEIGHBOURS = 5  # characters
NEIGHBOURS_NATS = -48.0  # five neighbouring characters rarer than this are looked at again
NEAR = 4  # bytes between a first byte that turned ASCII and the bad byte it leaves
GAIN = 2.0  # nats by which a parse with bad bytes must beat a reading without
SHIFT_GAIN = 60.0  # the same where nothing but the gain speaks for a shift: about ten characters that become likely
ESCAPES = "".join(map(chr, range(0xDC80, 0xDD00)))  # what stands for the bytes 80 to FF where they fit nowhere
# Python's big5hkscs decodes these codes differently from Windows and the browsers.
WINDOWS_SYMBOLS = str.maketrans("•､‾∼♁☉¥¢£⼳", "‧﹑¯～⊕⊙￥￠￡幺")


def family_of(codec: str) -> str:
    """Name the encoding that a codec belongs to: cp950 and big5hkscs are Big5."""
    return FAMILIES.get(codec, codec)


def display_name(codec: str) -> str:
    """Return a codec's name for people.

    >>> display_name("cp950"), display_name("utf-16-le")
    ('Big5', 'UTF-16-LE')
    """
    return DISPLAY_NAMES.get(family_of(codec), codec.upper())


def read_as(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode with one codec: the text, a lone surrogate for each bad byte, and the bad bytes' offsets.

    Raises:
        UnicodeError: a forced codec cannot read the bytes at all.
    """
    if codec in DOUBLE_BYTE:
        return read_double_byte(data, codec)
    with contextlib.suppress(UnicodeError):
        return data.decode(codec), []
    text = data.decode(codec, "surrogateescape")
    return text, bad_offsets(text, codec)


def bad_offsets(text: str, codec: str) -> list[int]:
    """Find the byte positions of the bad bytes in a surrogateescape reading."""
    codes = unicode_codes(text)
    if codec == "utf-8":
        sizes = char_sizes(codes, codec)
    else:
        sizes = np.array([len(char.encode(codec, "surrogateescape")) for char in text], np.int64)
    return (np.cumsum(sizes) - sizes)[is_bad(codes)].tolist()


def is_bad(codes: np.ndarray) -> np.ndarray:
    """Mark the code points that are lone surrogates: bool (num_chars,)."""
    return codes >> 11 == 0xD800 >> 11


def has_bad_bytes(text: str) -> bool:
    """Say whether a reading holds lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def drop_bad_bytes(text: str) -> str:
    """Remove the lone surrogates that stand for bad bytes."""
    return text.encode("utf-32-le", "surrogatepass").decode("utf-32-le", "ignore") if has_bad_bytes(text) else text


def char_sizes(codes: np.ndarray, codec: str) -> np.ndarray:
    """Count the bytes of each character of a reading, a four-byte character of GB18030 as two."""
    steps = (0x80, 0x800, 0x10000) if codec == "utf-8" else (0x80,)
    beyond = sum((codes >= step).astype(np.int64) for step in steps)
    return np.where(is_bad(codes), 1, 1 + beyond)


def read_double_byte(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode GB18030 or Big5 as read_as does; lines that read badly are parsed for the likeliest pairing.

    >>> text, offsets = read_double_byte("A道天下大势".encode("gb18030")[:2] + "天下大势".encode("gb18030"), "gb18030")
    >>> text[2:], offsets
    ('天下大势', [1])
    """
    text = plain_reading(data, codec)
    # a large file is parsed only where its plain reading raises suspicion
    numbers = suspicious_lines(text) if len(data) > SMALL_FILE else range(text.count("\n") + 1)
    if len(numbers) == 0:
        return text, []
    lines, raw_lines, bad = text.split("\n"), data.split(b"\n"), []
    starts = np.cumsum([0] + [len(line) + 1 for line in raw_lines])
    for number in numbers:
        final = number == len(lines) - 1
        before = b"\n" if number else b""
        lines[number], offsets = repair_line(raw_lines[number], lines[number], codec, before=before, final=final)
        bad += [int(starts[number]) + offset for offset in offsets]
    return "\n".join(lines), bad


def plain_reading(data: bytes, codec: str) -> str:
    """Decode with a double-byte codec from left to right, a lone surrogate for each byte that fits nowhere."""
    text = data.decode(codec, "surrogateescape")
    return text.translate(WINDOWS_SYMBOLS) if codec == "big5hkscs" else text


def suspicious_lines(text: str) -> np.ndarray:
    """Number the lines that hold an undecodable byte, or rare characters after an ASCII one that may be damage."""
    codes = unicode_codes(text)
    rare = sliding_sums(nats_of(text), NEIGHBOURS) < NEIGHBOURS_NATS
    rare &= sliding_sums(codes < 0x80, NEIGHBOURS) > 0
    bad = np.flatnonzero(is_bad(codes))
    places = np.concatenate([np.flatnonzero(rare), bad])
    return np.unique(np.searchsorted(np.flatnonzero(codes == 10), places))


def repair_line(raw: bytes, plain: str, codec: str, *, before: bytes, final: bool) -> tuple[str, list[int]]:
    """Parse one line; its plain reading stays unless it has bad bytes, or a first byte turned ASCII explains it better.

    `before` is the byte before the line; a `final` line ends the file. Returns text and offsets of bad bytes.
    """
    if plain.isascii():
        return plain, []
    text, bad, nats, last_width = parse_line(raw, codec, final=final)

    # a character cut off at the end of the file is no argument against the plain reading: it is left out of both
    body = plain.rstrip(ESCAPES) if final else plain
    num_cut = len(plain) - len(body)
    gain = nats - score(body) - CUT_NATS * (num_cut > 0)

    # bad bytes close to an ASCII byte are explained: that byte was the first half of a character once
    cut = len(raw) - last_width if final else len(raw)
    explained = all(place >= cut or any(byte < 0x80 for byte in (before + raw[:place])[-NEAR:]) for place in bad)
    if not has_bad_bytes(body) and gain < (GAIN if explained else SHIFT_GAIN):
        return plain, list(range(len(raw) - num_cut, len(raw)))
    return text, bad


def parse_line(raw: bytes, codec: str, *, final: bool) -> tuple[str, list[int], float, int]:
    """Parse a line, perhaps a whole book, by sections: text, offsets of bad bytes, nats, bytes of the last step."""
    parts, bad, start, total, widths = [], [], 0, 0.0, [0]
    while start < len(raw):
        section = raw[start : start + SECTION]
        last = start + len(section) == len(raw)
        # decoding is far faster than parsing: a sound section is only decoded
        if not last and (sound := sound_reading(section, codec)):
            parts.append(sound[0])
            start, total = start + sound[1], total + score(sound[0])
            continue
        # the end of a section may lie inside a character: the next section parses it again
        widths, nats = best_parse(section, codec, final=final and last)
        text, offsets, used = join_parse(section, widths, codec, len(section) if last else len(section) - OVERLAP)
        parts.append(text)
        bad += [start + offset for offset in offsets]
        start, total = start + used, total + nats
    return "".join(parts), bad, total, widths[-1]


def sound_reading(section: bytes, codec: str) -> tuple[str, int] | None:
    """Decode the whole characters of a section, with the bytes used; None if there is anything to repair."""
    decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
    text = decoder.decode(section)
    text = text.translate(WINDOWS_SYMBOLS) if codec == "big5hkscs" else text
    return None if len(suspicious_lines(text)) else (text, len(section) - len(decoder.getstate()[0]))


def best_parse(data: bytes, codec: str, *, final: bool = False) -> tuple[list[int], float]:
    """Find the likeliest division of bytes into characters and bad bytes: the bytes of each step, and the sum of nats.

    >>> best_parse("大A势".encode("gb18030"), "gb18030")[0]
    [2, 1, 2]
    """
    pairs, single, alphabets = likelihood.pair_nats(codec), likelihood.byte_nats(), likelihood.pair_alphabets(codec)
    best = [0.0] * (len(data) + 1)  # nats of the likeliest parse that ends before each byte
    width = [0] * (len(data) + 1)  # bytes of that parse's last step
    for end, byte in enumerate(data, 1):
        # one byte: ASCII or bad; a bad one is likelier behind another, or behind a first half that became ASCII
        nats = best[end - 1] + single[byte]
        if byte >= 0x80 and width[end - 1] == 1:
            nats += AFTER_BAD if data[end - 2] >= 0x80 else AFTER_ASCII
        best[end], width[end] = nats, 1
        # a character of two bytes, or of four, whose second and fourth byte are digits
        if byte >= 0x40:
            pair = data[end - 2] << 8 | byte if end >= 2 else 0
            nats = pairs[pair]
            # a sign behind itself, and a foreign letter that goes on with a word, are no surprise
            if BAD_BYTE < nats < likelihood.AGAIN and width[end - 2] == 2:
                before = data[end - 4] << 8 | data[end - 3]
                if before == pair:
                    nats = likelihood.AGAIN
                elif alphabets[pair] and alphabets[before] == alphabets[pair]:
                    nats = likelihood.IN_WORD
            if best[end - 2] + nats > best[end]:
                best[end], width[end] = best[end - 2] + nats, 2
        elif byte >= 0x30 and codec == "gb18030" and is_quad(data[max(0, end - 4) : end]):
            best[end], width[end] = best[end - 4] + QUAD_NATS, 4
    # the file may end inside a character
    for cut in range(1, min(4, len(data) + 1)) if final else ():
        if is_unfinished(data[-cut:], codec) and best[-1 - cut] + CUT_NATS > best[-1]:
            best[-1], width[-1] = best[-1 - cut] + CUT_NATS, cut
    # back along the likeliest parse
    steps, end = [], len(data)
    while end:
        steps.append(width[end])
        end -= width[end]
    return steps[::-1], best[-1]


def is_quad(part: bytes) -> bool:
    """Say whether bytes are one four-byte character of GB18030."""
    return len(part) == 4 and part[0] >= 0x81 and 0x30 <= part[1] <= 0x39 and len(part.decode("gb18030", "ignore")) == 1


def is_unfinished(part: bytes, codec: str) -> bool:
    """Say whether bytes are the beginning of one character."""
    decoder = codecs.getincrementaldecoder(codec)("ignore")
    return decoder.decode(part) == "" and decoder.getstate()[0] == part


def join_parse(data: bytes, widths: list[int], codec: str, limit: int) -> tuple[str, list[int], int]:
    """Decode the steps of a parse up to a limit in bytes: text, offsets of bad bytes, bytes used."""
    parts, bad, start = [], [], 0
    for width in widths:
        if start >= limit:
            break
        part = data[start : start + width]
        text = part.decode(codec, "ignore")
        if not text:
            text = "".join(chr(0xDC00 + byte) for byte in part)
            bad += range(start, start + width)
        parts.append(text)
        start += width
    text = "".join(parts)  # bad bytes as lone surrogates
    return text.translate(WINDOWS_SYMBOLS) if codec == "big5hkscs" else text, bad, start
