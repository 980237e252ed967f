"""The bytes of a novel -> its text, whatever encoding they came in, or an error; never a silent guess.

The order is: byte order mark; strict UTF-8; then every encoding that Chinese books come in (UTF-8 with faults,
GB18030, Big5, UTF-16 and UTF-32 without a mark) reads the bytes, and the reading that looks most like Chinese prose
wins if it wins clearly. "The first that does not raise" would be wrong: GB18030 accepts nearly every Big5 file.
Around faults the likeliest pairing of bytes is searched (see parsing.py); pasted chapters in another encoding are told
apart line by line (see mixing.py).
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from novelgpt.console import printable
from novelgpt.corpus.mixing import changes_inside, find_segments, has_strange_lines, is_foreign, split_lines
from novelgpt.corpus.parsing import SMALL, has_escapes, plain_reading, read_double_byte
from novelgpt.corpus.plausibility import is_plausible, score
from novelgpt.errors import EXIT_INPUT, EXIT_USAGE, UserError

MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
DOUBLE_BYTE = ("gb18030", "cp950", "big5hkscs")
CANDIDATES = ("utf-8", *DOUBLE_BYTE, "utf-16-le", "utf-16-be")
FAMILY = {"cp950": "big5", "big5hkscs": "big5", "gbk": "gb18030", "gb2312": "gb18030", "cp936": "gb18030"}
WIDE = {"utf-16-le": "<u2", "utf-16-be": ">u2", "utf-32-le": "<u4", "utf-32-be": ">u4"}
NAMES = {"utf-8": "UTF-8", "gb18030": "GB18030", "big5": "Big5", "mixed": "several encodings"}

MARGIN = 20.0  # nats by which a reading must be likelier than the next
UTF8_MARGIN = 8.0  # the same for UTF-8 without a fault
UTF8_BYTES = 32  # so many bytes of UTF-16 are never valid UTF-8 without a NUL
MARK_NATS = 30.0  # nats a byte order mark counts for, and its absence against UTF-16 and UTF-32
NUM_BLOCKS, SAMPLE = 8, 1 << 13  # blocks of so many bytes are compared in a file that is not small
CLEAR_SEQUENCES = 12  # so many valid UTF-8 characters do not come about by chance
FEW_BAD_BYTES = 8
MAX_BAD_SHARE = 0.001
BLOCK = 1 << 16  # bytes
OFFSETS = 5


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


def decode_bytes(data: bytes, encoding: str | None = None, *, name: str = "input") -> Decoded:
    """Decode a whole file by what is in it.

    Args:
        data: the bytes of the file.
        encoding: reads the file so without asking; None finds out.
        name: the file's name for messages.

    Raises:
        UserError: empty, an unknown encoding, undecided between two readings, or too many bad bytes.

    >>> decode_bytes("萧炎大喝一声，斗气化马。".encode("gbk")).encoding
    'gb18030'
    """
    if not data:
        raise UserError(f"{name}: empty, expected the text of a novel", f"give another file than {name}", EXIT_INPUT)
    if encoding is not None:
        return decode_forced(data, encoding, name)
    mark = next((codec for mark, codec in MARKS if data.startswith(mark)), None)
    if (mark or "utf-8-sig") == "utf-8-sig" and (decoded := decode_utf8(data)):
        return decoded
    codec, reason = choose_codec(data, mark, name)
    text, offsets = read_as(data, codec)
    if codec not in WIDE and (offsets or has_strange_lines(text)) and (mixed := decode_mixed(data, codec, text, name)):
        return mixed
    if codec != "utf-8" and not reason.endswith("mark") and not is_plausible(text):
        raise implausible(drop_escapes(text), codec, name)
    refuse_bad_bytes(offsets, len(data), codec, name)
    text = drop_escapes(text)
    reported = "utf-8-sig" if mark == "utf-8-sig" and codec == "utf-8" else family(codec)
    return Decoded(text.removeprefix("\ufeff"), reported, reason, len(offsets), tuple(offsets[:OFFSETS]))


def family(codec: str) -> str:
    """Name the encoding that a codec belongs to: cp950 and big5hkscs are Big5."""
    return FAMILY.get(codec, codec)


def decode_utf8(data: bytes) -> Decoded | None:
    """Decode bytes that are UTF-8 beyond doubt; None when they are not."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    num_sequences = (len(data) - len(text)) // 2  # of two or three bytes; near enough
    if text.count("\0") * 100 > len(text) or (not text.isascii() and num_sequences < CLEAR_SEQUENCES):
        return None
    marked = text.startswith("\ufeff")
    reason = "plain ASCII" if text.isascii() else "strict UTF-8 without a fault"
    if marked:
        return Decoded(text[1:], "utf-8-sig", "a UTF-8 byte order mark")
    return Decoded(text, "utf-8", reason)


def decode_forced(data: bytes, encoding: str, name: str) -> Decoded:
    """Decode as the user said; bad bytes are dropped and counted."""
    hint = "--encoding gb18030, big5, utf-8, utf-16-le or utf-16-be"
    try:
        codec = codecs.lookup(encoding).name
        b"".decode(codec)
    except (LookupError, ValueError) as problem:
        raise UserError(f"--encoding: unknown encoding {encoding!r}", hint, EXIT_USAGE) from problem
    codec = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8", "big5": "cp950"}.get(codec, codec)
    mark = next((mark for mark in MARKS if data.startswith(mark[0])), None)
    if mark and codec[:6] == mark[1][:6] in ("utf-16", "utf-32"):
        codec = mark[1]
    if family(codec) == "big5":
        codec = max(("cp950", "big5hkscs"), key=lambda candidate: reading_score(data, candidate))
    text, offsets = read_as(data, FAMILY.get(codec, codec) if codec not in DOUBLE_BYTE else codec)
    text = drop_escapes(text)
    return Decoded(text.removeprefix("\ufeff"), encoding, "--encoding", len(offsets), tuple(offsets[:OFFSETS]))


def choose_codec(data: bytes, mark: str | None, name: str) -> tuple[str, str]:
    """Pick the codec whose reading is clearly the likeliest.

    Returns:
        The codec and the reason in one sentence.

    Raises:
        UserError: no reading is likely enough, or two are about as likely.
    """
    marked = {"utf-8-sig": "utf-8"}.get(mark, mark)
    faultless = is_utf8(data)
    scores = {codec: reading_score(data, codec) + prior_nats(codec, marked) for codec in candidates(data, faultless)}
    ranked = sorted(scores, key=scores.get, reverse=True)
    best = ranked[0]
    second = next(codec for codec in ranked if family(codec) != family(best))
    lead = scores[best] - scores[second]
    if best != marked and lead < (UTF8_MARGIN if best == "utf-8" and faultless else MARGIN):
        raise undecided(data, best, second, name)
    if best == marked:
        return best, f"a {best[:6].upper()} byte order mark"
    return best, f"reads as Chinese {lead:,.0f} nats likelier than as {NAMES.get(family(second), second.upper())}"


def decode_mixed(data: bytes, main: str, text: str, name: str) -> Decoded | None:
    """Decode a file line by line in several encodings; None when it is in one.

    Raises:
        UserError: a line changes its encoding within.
    """
    codecs = (main, *(codec for codec in ("utf-8", "gb18030", "big5hkscs") if family(codec) != family(main)))
    lines = data.splitlines(keepends=True)
    found = []
    for first, last, codec in find_segments(data, codecs, {main: text}):
        if codec != main and not is_foreign(b"".join(lines[first : last + 1]), codec, main):
            codec = main
        if found and found[-1][2] == codec:
            first = found.pop()[0]
        found.append((first, last, codec))
    texts, bad, start = [], [], 0
    for first, last, codec in found:
        raw = b"".join(lines[first : last + 1])
        part, offsets = (text, []) if len(found) == 1 else read_as(raw, codec)
        refuse_inner_changes(lines[first : last + 1], part, (first, start), (codec, *codecs), name)
        texts.append(part)
        bad += [start + offset for offset in offsets]
        start += len(raw)
    if len(found) == 1:
        return None
    refuse_bad_bytes(bad, len(data), "mixed", name)
    segments = tuple((first + 1, last + 1, family(codec)) for first, last, codec in found)
    reason = "its lines are in " + " and ".join(sorted({NAMES[codec] for _, _, codec in segments}))
    text = drop_escapes("".join(texts)).removeprefix("\ufeff")
    return Decoded(text, "mixed", reason, len(bad), tuple(bad[:OFFSETS]), segments)


def refuse_inner_changes(
    lines: list[bytes], text: str, place: tuple[int, int], codecs: tuple[str, ...], name: str
) -> None:
    """Raise when a line is partly in another encoding.

    Args:
        lines: the bytes of each line of a segment.
        text: the segment's reading.
        place: the number of its first line and of its first byte, from 0.
        codecs: its encoding, then all that are compared.
        name: the file's name for messages.
    """
    number, start = place
    for line, reading in zip(lines, split_lines(text), strict=True):
        number += 1
        if not line.isascii() and changes_inside(line, reading, codecs[0], codecs[1:]):
            message = f"{name}: line {number:,} (from byte {start:,}) changes its encoding within, expected one a line"
            raise UserError(message, "break the line where the encoding changes, or give --encoding", EXIT_INPUT)
        start += len(line)


def is_utf8(data: bytes) -> bool:
    """Say whether bytes are UTF-8 without a fault or NUL."""
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def candidates(data: bytes, faultless: bool) -> tuple[str, ...]:
    """List the codecs worth comparing: UTF-32 only for bytes full of NULs, UTF-16 not for longer faultless UTF-8."""
    if faultless and len(data) >= UTF8_BYTES:
        return ("utf-8", *DOUBLE_BYTE)
    head = data[: 4 * SAMPLE]
    return CANDIDATES + (("utf-32-le", "utf-32-be") if head.count(0) * 4 > len(head) else ())


def prior_nats(codec: str, marked: str | None) -> float:
    """Say what a byte order mark, or its absence, speaks for a codec, in nats."""
    return MARK_NATS if codec == marked else -MARK_NATS if codec in WIDE else 0.0


def undecided(data: bytes, best: str, second: str, name: str) -> UserError:
    """Make the error that shows two readings of the same bytes side by side."""
    shown = [
        f"{family(codec)} reads {printable(drop_escapes(read_as(data[:120], codec)[0]).strip()[:20])!r}"
        for codec in (best, second)
    ]
    message = f"{name}: encoding undecided: {shown[0]}, {shown[1]}"
    return UserError(message, f"--encoding {family(best)} or --encoding {family(second)}", EXIT_INPUT)


def implausible(sample: str, best: str, name: str) -> UserError:
    """Make the error for bytes that are Chinese prose in no encoding."""
    shown = printable(sample.strip()[:20])
    message = f"{name}: not Chinese text in any known encoding; the nearest, {family(best)}, reads {shown!r}"
    return UserError(message, "--encoding NAME if you know it, for example --encoding shift_jis", EXIT_INPUT)


def sample_blocks(data: bytes) -> list[bytes]:
    """Take a small file whole, otherwise blocks spread over it."""
    if len(data) <= max(SMALL, NUM_BLOCKS * SAMPLE):
        return [data]
    # Multiples of four: whole characters of UTF-16 and UTF-32.
    starts = [len(data) * part // NUM_BLOCKS & ~3 for part in range(NUM_BLOCKS)]
    return [data[start : start + SAMPLE] for start in starts]


def reading_score(data: bytes, codec: str) -> float:
    """Sum the log-probability of the sampled characters as a codec reads them, in nats."""
    if codec not in DOUBLE_BYTE or len(data) <= SMALL:
        return sum(score(read_as(block, codec)[0]) for block in sample_blocks(data))
    return sum(  # a block may begin inside a character
        max(score(plain_reading(block[skip:], codec)) for skip in (0, 1)) for block in sample_blocks(data)
    )


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
    except UnicodeDecodeError:
        text = data.decode(codec, "surrogateescape")
        return text, escape_offsets(text)


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
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    bad = np.flatnonzero((codes >= 0xD800) & (codes < 0xE000))
    sizes = np.where((codes >= 0x10000) & (kind.itemsize == 2), 4, kind.itemsize)
    places = (np.cumsum(sizes) - sizes)[bad]
    offsets = [int(place) + byte for place in places for byte in range(kind.itemsize)]
    return text + "\udc80" * (len(data) - whole), offsets + list(range(whole, len(data)))


def escape_offsets(text: str) -> list[int]:
    """Find the byte positions of the escaped bytes in a surrogateescape reading of UTF-8."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    escaped = codes >> 11 == 0xD800 >> 11
    sizes = np.where(escaped, 1, 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000))
    return (np.cumsum(sizes) - sizes)[escaped].tolist()


def drop_escapes(text: str) -> str:
    """Remove the lone surrogates that stand for bad bytes."""
    return text.encode("utf-32-le", "surrogatepass").decode("utf-32-le", "ignore") if has_escapes(text) else text


def refuse_bad_bytes(offsets: Sequence[int], size: int, codec: str, name: str) -> None:
    """Raise when more than 0.1 % of a file (and more than a handful) are bad bytes."""
    if len(offsets) > max(FEW_BAD_BYTES, size * MAX_BAD_SHARE):
        message = f"{name}: {len(offsets):,} of {size:,} bytes are not {NAMES.get(family(codec), codec)}, "
        message += f"the first at byte {offsets[0]:,}; expected at most 0.1 %"
        raise UserError(message, f"--encoding {family(codec)} drops them; better get an undamaged file", EXIT_INPUT)
