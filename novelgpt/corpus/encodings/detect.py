"""The bytes of a file -> its text, in the encoding that its content shows: whole, or as a stream of blocks.

A byte order mark decides, then strict UTF-8; else every encoding that Chinese books come in reads the bytes, and the
reading most like Chinese prose wins if it wins clearly (candidates.py). Faults are repaired (repair.py), lines in
another encoding told apart (mixed.py).

Of a file too large for memory, the first block that is not plain ASCII decides; every block is then read as a file is.
A line or a block that cannot be read is counted and costs no more than itself; a file is refused where a large part
of it reads as nothing.
"""

import codecs
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from novelgpt.corpus.encodings.candidates import (
    WESTERN,
    choose_codec,
    find_mark,
    forced_codec,
    is_mostly_ascii,
    read_as,
    sample_of,
)
from novelgpt.corpus.encodings.likelihood import has_strange_lines, is_plausible, nonsense_share, score
from novelgpt.corpus.encodings.mixed import Reading, decode_mixed
from novelgpt.corpus.encodings.repair import display_name, drop_bad_bytes, family_of
from novelgpt.corpus.encodings.wide import WIDE, whole_bytes
from novelgpt.corpus.signatures import NAMES, container_kind, converting_command
from novelgpt.messages import EXIT_INPUT, UserError

FEW_BAD_BYTES = 8  # that any file may hold
MAX_BAD_SHARE = 0.03  # of a file's bytes
MAX_NONSENSE = 0.5  # of a file's stretches
MAX_OFFSETS = 5  # bad bytes reported with their places
MAX_LEAD = 20.0  # nats for each character; more is no news
CLEAR_SEQUENCES = 12  # this many valid UTF-8 characters do not come about by chance


@dataclass(frozen=True)
class Decoded:
    """A decoded file."""

    text: str  # without byte order mark and bad bytes
    encoding: str  # utf-8, utf-8-sig, gb18030, big5, utf-16-le, utf-16-be, utf-32-le, utf-32-be, mixed, or as forced
    reason: str  # one sentence that says why this encoding
    bad_bytes: int = 0  # dropped, as they are not part of any character
    bad_offsets: tuple[int, ...] = ()  # places of the first of them in the file
    segments: tuple[tuple[int, int, str], ...] = ()  # (first line from 1, last line, encoding) in a mixed file
    torn_lines: tuple[int, ...] = ()  # from 1; garbled, or partly in another encoding


def decode_bytes(data: bytes, encoding: str | None = None, *, force: bool = False, name: str = "input") -> Decoded:
    """Decode a whole file by what is in it.

    Args:
        data, name: the bytes of the file, and its name for messages.
        encoding: the encoding it is in; None detects it.
        force: take it for that encoding even where that reads nonsense.

    Raises:
        UserError: empty, no text, an unknown encoding, one that reads nonsense where another reads Chinese, undecided
            between two readings, or a large part that cannot be read.

    >>> decode_bytes("萧炎大喝一声，斗气化马。".encode("gbk")).encoding
    'gb18030'
    """
    if not data:
        raise UserError(f"{name}: empty, expected the text of a novel", f"give another file than {name}", EXIT_INPUT)
    refuse_foreign(data, name)
    if encoding is not None:
        codec = forced_codec(data, encoding)
        text, offsets = read_as(data, codec)
        if not force:
            refuse_nonsense(data, text, encoding, codec, name)
        return make_decoded(Reading(text, offsets), encoding, "--encoding says so")
    # UTF-8 without a fault, and enough of it, needs no comparison
    mark = find_mark(data)
    if mark in (None, "utf-8-sig") and (decoded := decode_utf8(data)):
        return decoded
    if mark == "utf-8-sig":
        data = data.removeprefix(codecs.BOM_UTF8)  # other text may have been pasted behind it
    # otherwise the encodings compete, and the winner reads the whole file
    codec, reason = choose_codec(data, mark, name)
    reading = read_lines(data, codec)
    encoding = reported_name(codec, mark)
    if reading.segments:
        encoding, reason = "mixed", describe_mixture(reading.segments)
    # the likeliest reading may still be no Chinese
    elif codec not in ("utf-8", mark) and nonsense_share(reading.text) > MAX_NONSENSE:
        raise no_chinese(name, codec, reading.text)
    offsets = reading.bad_offsets
    refuse_bad_bytes(len(offsets), offsets, len(data), "mixed" if reading.segments else codec, name)
    return make_decoded(reading, encoding, reason)


def read_lines(data: bytes, codec: str) -> Reading:
    """Read bytes in one codec, and the lines that it does not explain, damaged or pasted ones, as well as can be."""
    text, offsets = read_as(data, codec)
    if codec in (WESTERN, *WIDE) or not (offsets or (codec != "utf-8" and has_strange_lines(text))):
        return Reading(text, offsets)
    return decode_mixed(data, codec, text, offsets)


def describe_mixture(segments: Sequence[tuple[int, int, str]]) -> str:
    """Say which encodings a mixed file is in."""
    return f"its lines are in {' and '.join(sorted({display_name(codec) for _, _, codec in segments}))}"


def no_chinese(name: str, codec: str, text: str) -> UserError:
    """Make the error for a file that does not read as Chinese even in the likeliest codec, as `text`."""
    shown = sample_of(text)
    message = f"{name}: not Chinese text in any known encoding; the nearest, {family_of(codec)}, reads 「{shown}」"
    return UserError(message, "--encoding NAME if you know it, for example --encoding shift_jis", EXIT_INPUT)


def refuse_foreign(head: bytes, name: str) -> None:
    """Raise UserError where the beginning of a file tells that it is no text; the hint is what makes text of it."""
    if kind := container_kind(head):
        raise UserError(f"{name}: {NAMES[kind]}, not text", converting_command(kind, name), EXIT_INPUT)


def refuse_nonsense(data: bytes, text: str, encoding: str, codec: str, name: str) -> None:
    """Raise where the encoding asked for reads nonsense, as `text`, in bytes that are Chinese in another encoding."""
    if nonsense_share(text) <= MAX_NONSENSE:
        return
    try:
        likelier, _ = choose_codec(data, find_mark(data), name)
    except UserError:  # undecided: then the user decides
        return
    other, better = read_as(data, likelier)[0], family_of(likelier)
    if better != family_of(codec) and nonsense_share(other) <= MAX_NONSENSE:
        # as many nats for each character beyond ASCII
        num_chars = max(1, sum(char > "\x7f" for char in other))
        times = math.exp(min((score(other) - score(text)) / num_chars, MAX_LEAD))
        readings = f"--encoding {encoding} reads 「{sample_of(text)}」, {better} reads 「{sample_of(other)}」"
        message = f"{name}: {readings}, {times:,.0f} times as likely for each character"
        raise UserError(message, f"--encoding {better}, or --encoding {encoding} --force_encoding", EXIT_INPUT)


def make_decoded(reading: Reading, encoding: str, reason: str) -> Decoded:
    """Put a reading together: the marks of bad bytes and the byte order mark go."""
    text, offsets = drop_bad_bytes(reading.text).removeprefix("\ufeff"), tuple(reading.bad_offsets)
    return Decoded(text, encoding, reason, len(offsets), offsets[:MAX_OFFSETS], reading.segments, reading.torn_lines)


def refuse_bad_bytes(count: int, offsets: Sequence[int], size: int, codec: str, name: str) -> None:
    """Raise when a large part of a file (and more than a handful) are bad bytes; offsets: of the first of them."""
    if count > max(FEW_BAD_BYTES, size * MAX_BAD_SHARE):
        message = f"{name}: {count:,} of {size:,} bytes are not {display_name(codec)}, "
        message += f"the first at byte {offsets[0]:,}; expected at most {MAX_BAD_SHARE:.0%}"
        raise UserError(message, f"--encoding {family_of(codec)} drops them; better get an undamaged file", EXIT_INPUT)


def reported_name(codec: str, mark: str | None) -> str:
    """Name the encoding of a file for the report."""
    return "utf-8-sig" if mark == "utf-8-sig" and codec == "utf-8" else family_of(codec)


def decode_utf8(data: bytes) -> Decoded | None:
    """Decode bytes that are UTF-8 beyond doubt; None when they are not."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    num_sequences = (len(data) - len(text)) // 2  # of two or three bytes; near enough
    if text.count("\0") * 100 > len(text) or (not text.isascii() and num_sequences < CLEAR_SEQUENCES):
        return None
    if text.startswith("\ufeff"):
        return Decoded(text[1:], "utf-8-sig", "a UTF-8 byte order mark")
    return Decoded(text, "utf-8", "plain ASCII" if text.isascii() else "strict UTF-8 without a fault")


class TextStream:
    """Iterate over the text of a file in blocks of up to a million characters that never part a CRLF.

    Args:
        blocks: the bytes of the file, at least 4 and at most a mebibyte at a time.
        name, encoding, force: as for decode_bytes.

    Raises:
        UserError: while iterating: unreadable, empty, no text, undecided, or a large part that cannot be read.
    """

    def __init__(self, blocks: Iterator[bytes], name: str, encoding: str | None = None, *, force: bool = False):
        self.blocks = blocks
        self.name = name
        self.forced, self.force = encoding, force
        self.codec, self.is_settled = "utf-8", False
        self.encoding = self.reason = ""
        self.num_bytes = self.num_lines = 0  # decoded so far
        self.bad_bytes = 0
        self.bad_offsets: tuple[int, ...] = ()
        self.segments: list[tuple[int, int, str]] = []
        self.torn_lines: list[int] = []
        self.nonsense, self.sample = 0, ""  # bytes of blocks that read as nothing, and the first of them

    @property
    def decoded(self) -> Decoded:
        """How the file was read up to here, without its text."""
        encoding, reason, segments = self.encoding, self.reason, ()
        if len(self.segments) > 1:
            encoding, reason, segments = "mixed", describe_mixture(self.segments), tuple(self.segments)
        return Decoded("", encoding, reason, self.bad_bytes, self.bad_offsets, segments, tuple(self.torn_lines))

    def __iter__(self) -> Iterator[str]:
        rest = next(self.blocks, b"")
        if not rest:
            raise UserError(f"{self.name}: empty, expected the text of a novel", "give another file", EXIT_INPUT)
        self.choose(rest)
        # what a block leaves unfinished, bytes of a character or the CR of a CRLF, goes before the next one
        held = ""
        for block in self.blocks:
            rest, unfinished = split_block(rest, self.codec)
            text = held + self.decode(rest)
            held = "\r" if text.endswith("\r") else ""
            yield text.removesuffix("\r")
            rest = unfinished + block
            self.settle(rest)
        yield held + self.decode(rest)
        if self.forced is not None:
            return
        if self.nonsense > MAX_NONSENSE * self.num_bytes:
            raise no_chinese(self.name, self.codec, self.sample)
        refuse_bad_bytes(self.bad_bytes, self.bad_offsets, self.num_bytes, self.codec, self.name)

    def choose(self, head: bytes) -> None:
        """Decide the encoding by the beginning of the file."""
        refuse_foreign(head, self.name)
        if self.forced is None:
            self.settle(head)
            return
        self.encoding, self.reason = self.forced, "--encoding says so"
        self.codec, self.is_settled = forced_codec(head, self.forced), True
        if not self.force:
            refuse_nonsense(head, read_as(head, self.codec)[0], self.forced, self.codec, self.name)

    def settle(self, block: bytes) -> None:
        """Decide by each block anew until one is not mostly ASCII, which reads the same in nearly every encoding."""
        if self.is_settled:
            return
        self.codec = "utf-8"
        if block.isascii() and b"\0" not in block:
            self.encoding, self.reason = self.encoding or "utf-8", self.reason or "plain ASCII"
            return
        mark = None if self.num_bytes else find_mark(block)
        try:
            self.codec, self.reason = choose_codec(block, mark, self.name)
        except UserError:
            # a few strange bytes behind a mebibyte of ASCII say nothing
            if not self.num_bytes:
                raise
        else:
            self.encoding = reported_name(self.codec, mark)
            self.is_settled = not is_mostly_ascii(block)

    def decode(self, data: bytes) -> str:
        """Decode whole characters and keep count of what could not be read."""
        reading = Reading(*read_as(data, self.codec)) if self.forced is not None else read_lines(data, self.codec)
        text = drop_bad_bytes(reading.text)
        if self.num_bytes == 0:
            text = text.removeprefix("\ufeff")
        places = tuple(self.num_bytes + offset for offset in reading.bad_offsets[:MAX_OFFSETS])
        self.bad_offsets = (self.bad_offsets + places)[:MAX_OFFSETS]
        self.bad_bytes += len(reading.bad_offsets)
        if self.codec != "utf-8" and not is_plausible(text):
            self.nonsense += len(data)
            self.sample = self.sample or text[:1000]
        self.note_lines(data, reading)
        self.num_bytes += len(data)
        return text

    def note_lines(self, data: bytes, reading: Reading) -> None:
        """Keep the segments and torn lines of a block, as lines of the file."""
        num_breaks = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
        self.torn_lines += [self.num_lines + line for line in reading.torn_lines]
        whole = () if data.isascii() else ((1, max(1, num_breaks), family_of(self.codec)),)
        for first, last, other in reading.segments or whole:
            first = first + self.num_lines if self.segments else 1
            if self.segments and self.segments[-1][2] == other:
                first = self.segments.pop()[0]
            self.segments.append((first, last + self.num_lines, other))
        self.num_lines += num_breaks


def split_block(data: bytes, codec: str) -> tuple[bytes, bytes]:
    """Split a block at its last line break, or else before an unfinished character.

    >>> split_block("萧炎".encode("gbk")[:3], "gb18030")
    (b'\\xcf\\xf4', b'\\xd1')
    """
    end = whole_bytes(data, codec) if codec in WIDE else data.rfind(b"\n") + 1
    if end == 0:
        decoder = codecs.getincrementaldecoder(codec)("surrogateescape")
        decoder.decode(data)
        end = len(data) - len(decoder.getstate()[0])
    return data[:end], data[end:]
