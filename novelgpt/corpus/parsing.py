"""Double-byte text with faults in it -> the most plausible reading.

A lost or changed byte shifts the pairing of all double-byte characters after it, often without an undecodable byte.
A faulty line is therefore parsed by dynamic programming over its bytes: each step takes one ASCII byte, one character
of two or four bytes, or one bad byte, and the parse with the largest sum of log-probabilities wins::

    bytes    41 CB | B5 B5 | C0 ...     the first byte of 说 (CB B5) became 41
    plain    A 说? ...                   a shift turns the whole rest of the line into other characters
    parsed   A, one bad byte, 道 ...
"""

import codecs

import numpy as np

from novelgpt.corpus.plausibility import BAD_BYTE, code_points, nats_list, nats_of, pair_nats, score

QUAD_NATS = -17.0  # a four-byte character of GB18030
CUT_NATS = -8.0  # an unfinished character at the end of the file, where downloads stop
AFTER_ASCII = 10.0  # nats: the second byte of a character whose first byte became ASCII is likelier bad than others
AFTER_BAD = 10.0  # nats: damage comes in runs
SMALL = 1 << 14  # bytes; a file up to this size has every line parsed
PIECE = 1 << 12  # bytes; a longer line is parsed in pieces
OVERLAP = 64  # bytes before the end of a piece that the next one parses again
WINDOW = 5  # characters
WINDOW_NATS = -48.0  # five neighbouring characters rarer than this are looked at again
NEAR = 4  # bytes between a first byte that turned ASCII and the bad byte it leaves
GAIN = 2.0  # nats by which a parse with bad bytes must beat a reading without
SHIFT_GAIN = 60.0  # the same where nothing but the gain speaks for a shift: about ten characters that become likely
ESCAPES = "".join(map(chr, range(0xDC80, 0xDD00)))  # what stands for the bytes 80 to FF where they fit nowhere
# Python's big5hkscs reads these codes otherwise than Windows and the browsers do.
WINDOWS_SYMBOLS = str.maketrans("•､‾∼♁☉¥¢£", "‧﹑¯～⊕⊙￥￠￡")


def read_double_byte(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode GB18030 or Big5; lines with faults, or that read badly, are parsed for the likeliest pairing.

    Args:
        data: the bytes of a text.
        codec: "gb18030", "cp950" or "big5hkscs".

    Returns:
        The text with a lone surrogate for each bad byte, and the offsets of the bad bytes.

    >>> text, offsets = read_double_byte("A道天下大势".encode("gb18030")[:2] + "天下大势".encode("gb18030"), "gb18030")
    >>> text[2:], offsets
    ('天下大势', [1])
    """
    text = plain_reading(data, codec)
    numbers = suspicious_lines(text) if len(data) > SMALL else range(text.count("\n") + 1)
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
    codes = code_points(text)
    rare = windows(nats_of(text), WINDOW) < WINDOW_NATS
    rare &= windows(codes < 0x80, WINDOW) > 0
    bad = np.flatnonzero(is_escape(codes))
    places = np.concatenate([np.flatnonzero(rare), bad])
    return np.unique(np.searchsorted(np.flatnonzero(codes == 10), places))


def is_escape(codes: np.ndarray) -> np.ndarray:
    """Mark the code points that are lone surrogates."""
    return codes >> 11 == 0xD800 >> 11


def char_sizes(codes: np.ndarray, codec: str) -> np.ndarray:
    """Count the bytes of each character of a reading, a four-byte character of GB18030 as two."""
    bad = is_escape(codes)
    steps = (0x80, 0x800, 0x10000) if codec == "utf-8" else (0x80,)
    beyond = sum((codes >= step).astype(np.int64) for step in steps)
    return np.where(bad, 1, 1 + beyond)


def windows(values: np.ndarray, width: int) -> np.ndarray:
    """Sum the values from each place on: float64 (num_values,), zeros taken beyond the end."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    ends = np.minimum(np.arange(len(values)) + width, len(values))
    return sums[ends] - sums[:-1]


def repair_line(raw: bytes, plain: str, codec: str, *, before: bytes, final: bool) -> tuple[str, list[int]]:
    """Parse one line; its plain reading stays unless it has bad bytes, or a first byte turned ASCII explains it better.

    Returns:
        The text and the offsets of bad bytes in the line.
    """
    if plain.isascii():
        return plain, []
    parts, bad, start, total = [], [], 0, 0.0
    while start < len(raw):
        piece = raw[start : start + PIECE]
        last = start + len(piece) == len(raw)
        if not last and (sound := sound_reading(piece, codec)):
            parts.append(sound[0])
            start, total = start + sound[1], total + score(sound[0])
            continue
        widths, nats = best_parse(piece, codec, final=final and last)
        text, offsets, used = join_parse(piece, widths, codec, len(piece) if last else len(piece) - OVERLAP)
        parts.append(text)
        bad += [start + offset for offset in offsets]
        start, total = start + used, total + nats
    cut = len(raw) - widths[-1] if final else len(raw)
    explained = all(place >= cut or has_ascii((before + raw[:place])[-NEAR:]) for place in bad)
    body = plain.rstrip(ESCAPES) if final else plain
    num_cut = len(plain) - len(body)
    gain = total - score(body) - CUT_NATS * (num_cut > 0)
    if not has_escapes(body) and gain < (GAIN if explained else SHIFT_GAIN):
        return plain, list(range(len(raw) - num_cut, len(raw)))
    return "".join(parts), bad


def has_ascii(data: bytes) -> bool:
    """Say whether any byte is ASCII."""
    return any(byte < 0x80 for byte in data)


def sound_reading(piece: bytes, codec: str) -> tuple[str, int] | None:
    """Decode the whole characters of a piece of a line, with the bytes used; None if there is anything to repair."""
    decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
    text = decoder.decode(piece)
    text = text.translate(WINDOWS_SYMBOLS) if codec == "big5hkscs" else text
    return None if len(suspicious_lines(text)) else (text, len(piece) - len(decoder.getstate()[0]))


def has_escapes(text: str) -> bool:
    """Say whether a reading holds lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def best_parse(data: bytes, codec: str, *, final: bool = False) -> tuple[list[int], float]:
    """Find the likeliest division of a line into characters and bad bytes.

    Args:
        data: bytes that begin at a character.
        codec: "gb18030", "cp950" or "big5hkscs".
        final: the data end where the file ends, perhaps inside a character.

    Returns:
        The length in bytes of each step (1, 2 or 4; up to 3 for an unfinished last one), and the log-probability of the
        whole in nats.

    >>> best_parse("大A势".encode("gb18030"), "gb18030")[0]
    [2, 1, 2]
    """
    pairs, single = pair_nats(codec), [*nats_list()[:0x80], *[BAD_BYTE] * 0x80]
    best, width = [0.0] * (len(data) + 1), [0] * (len(data) + 1)
    for end, byte in enumerate(data, 1):
        nats = best[end - 1] + single[byte]
        if byte >= 0x80 and width[end - 1] == 1:
            nats += AFTER_BAD if data[end - 2] >= 0x80 else AFTER_ASCII
        best[end], width[end] = nats, 1
        if byte >= 0x40:
            if end >= 2 and (nats := best[end - 2] + pairs[data[end - 2] << 8 | byte]) > best[end]:
                best[end], width[end] = nats, 2
        elif byte >= 0x30 and codec == "gb18030" and is_quad(data[max(0, end - 4) : end]):
            best[end], width[end] = best[end - 4] + QUAD_NATS, 4
    for cut in range(1, min(4, len(data) + 1)) if final else ():
        if is_unfinished(data[-cut:], codec) and best[-1 - cut] + CUT_NATS > best[-1]:
            best[-1], width[-1] = best[-1 - cut] + CUT_NATS, cut
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
