"""The bytes of a file -> its text, in the encoding that its content shows: whole, or as a stream of blocks.

A byte order mark decides, then strict UTF-8; else every encoding that Chinese books come in reads the bytes, and the
reading most like Chinese prose wins if it wins clearly. "The first that does not raise" would be wrong: GB18030 accepts
nearly every Big5 file. Faults are repaired (repair.py), lines in another encoding told apart (mixed.py).

Of a file too large for memory, the first mebibyte decides; everything after is decoded as it comes, bad bytes dropped
and counted. A block that no longer reads as Chinese is an error, as one pass cannot look back.
"""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from novelgpt.corpus.encodings import repair
from novelgpt.corpus.encodings.likelihood import has_strange_lines, is_plausible, score
from novelgpt.corpus.encodings.mixed import decode_mixed
from novelgpt.corpus.encodings.repair import DOUBLE_BYTE, WIDE, display_name, drop_bad_bytes, family_of
from novelgpt.corpus.signatures import NAMES, container_kind, converting_command
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, printable

BYTE_ORDER_MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CANDIDATES = ("utf-8", *DOUBLE_BYTE, "utf-16-le", "utf-16-be")

MARGIN = 20.0  # nats by which a reading must be likelier than the next
UTF8_MARGIN = 8.0  # the same for UTF-8 without a fault
UTF8_BYTES = 32  # this many bytes of UTF-16 are never valid UTF-8 without a NUL
MARK_NATS = 30.0  # nats a byte order mark counts for, and its absence against UTF-16 and UTF-32
FEW_BAD_BYTES = 8  # that any file may hold
MAX_BAD_SHARE = 0.001  # of a file's bytes
MAX_OFFSETS = 5  # bad bytes reported with their places
NUM_SAMPLES, SAMPLE = 8, 1 << 13  # this many stretches of this many bytes are compared in a file that is not small
MIN_JUDGED = 1000  # characters; a shorter block of a stream is not judged alone
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
    torn_lines: tuple[int, ...] = ()  # from 1; partly in another encoding


def decode_bytes(data: bytes, encoding: str | None = None, *, name: str = "input") -> Decoded:
    """Decode a whole file by what is in it.

    Args:
        data, name: the bytes of the file, and its name for messages.
        encoding: forced encoding; None detects it.

    Raises:
        UserError: empty, no text, an unknown encoding, one that reads nonsense where another reads Chinese, undecided
            between two readings, or too many bad bytes.

    >>> decode_bytes("萧炎大喝一声，斗气化马。".encode("gbk")).encoding
    'gb18030'
    """
    if not data:
        raise UserError(f"{name}: empty, expected the text of a novel", f"give another file than {name}", EXIT_INPUT)
    refuse_foreign(data, name)
    if encoding is not None:
        codec = forced_codec(data, encoding)
        text, offsets = read_as(data, codec)
        refuse_nonsense(data, text, encoding, codec, name)
        return make_decoded(text, encoding, "--encoding says so", offsets)
    # UTF-8 without a fault, and enough of it, needs no comparison
    mark = find_mark(data)
    if mark in (None, "utf-8-sig") and (decoded := decode_utf8(data)):
        return decoded
    if mark == "utf-8-sig":
        data = data.removeprefix(codecs.BOM_UTF8)  # other text may have been pasted behind it
    # otherwise the encodings compete, and the winner reads the whole file
    codec, reason = choose_codec(data, mark, name)
    text, offsets = read_as(data, codec)
    # what a single encoding cannot explain: a lost byte of UTF-16, or chapters in another encoding
    segments, torn = (), []
    if codec in WIDE:
        refuse_shift(text, codec, name)
    elif offsets or has_strange_lines(text):
        text, offsets, segments, torn = decode_mixed(data, codec, text, offsets, name)
    encoding = reported_name(codec, mark)
    if segments:
        found = sorted({display_name(other) for _, _, other in segments})
        encoding, reason = "mixed", f"its lines are in {' and '.join(found)}"
    # the likeliest reading may still be no Chinese
    elif codec not in ("utf-8", mark) and not is_plausible(text):
        shown = sample_of(text)
        message = f"{name}: not Chinese text in any known encoding; the nearest, {family_of(codec)}, reads 「{shown}」"
        raise UserError(message, "--encoding NAME if you know it, for example --encoding shift_jis", EXIT_INPUT)
    refuse_bad_bytes(len(offsets), offsets, len(data), "mixed" if segments else codec, name)
    return make_decoded(text, encoding, reason, offsets, segments, torn)


def refuse_foreign(head: bytes, name: str) -> None:
    """Raise UserError where the beginning of a file tells that it is no text; the hint is what makes text of it."""
    if kind := container_kind(head):
        raise UserError(f"{name}: {NAMES[kind]}, not text", converting_command(kind, name), EXIT_INPUT)


def sample_of(text: str) -> str:
    """Return the beginning of a reading in one line, as a message shows it."""
    return printable(" ".join(drop_bad_bytes(text[:1000]).replace("\ufeff", "").split())[:20])


def refuse_nonsense(data: bytes, text: str, encoding: str, codec: str, name: str) -> None:
    """Raise where the encoding asked for reads nonsense, as `text`, in bytes that are Chinese in another encoding."""
    if is_plausible(text):
        return
    try:
        likelier, _ = choose_codec(data, find_mark(data), name)
    except UserError:  # undecided: then the user decides
        return
    other, better = read_as(data, likelier)[0], family_of(likelier)
    if better != family_of(codec) and is_plausible(other):
        message = f"{name}: --encoding {encoding} reads 「{sample_of(text)}」, {better} reads 「{sample_of(other)}」"
        raise UserError(message, f"--encoding {better}", EXIT_INPUT)


def make_decoded(
    text: str,
    encoding: str,
    reason: str,
    offsets: list[int],
    segments: tuple[tuple[int, int, str], ...] = (),
    torn_lines: Sequence[int] = (),
) -> Decoded:
    """Put a reading together: the marks of bad bytes and the byte order mark go."""
    text = drop_bad_bytes(text).removeprefix("\ufeff")
    return Decoded(text, encoding, reason, len(offsets), tuple(offsets[:MAX_OFFSETS]), segments, tuple(torn_lines))


def refuse_bad_bytes(count: int, offsets: Sequence[int], size: int, codec: str, name: str) -> None:
    """Raise when more than 0.1 % of a file (and more than a handful) are bad bytes; offsets: of the first of them."""
    if count > max(FEW_BAD_BYTES, size * MAX_BAD_SHARE):
        message = f"{name}: {count:,} of {size:,} bytes are not {display_name(codec)}, "
        message += f"the first at byte {offsets[0]:,}; expected at most 0.1 %"
        raise UserError(message, f"--encoding {family_of(codec)} drops them; better get an undamaged file", EXIT_INPUT)


def refuse_shift(text: str, codec: str, name: str) -> None:
    """Raise when UTF-16 or UTF-32 text reads as Chinese only one byte later: a byte before it is lost or too many."""
    for start in range(0, len(text), SAMPLE):
        block = text[start : start + SAMPLE]
        if is_plausible(block):
            continue
        # the same bytes from the second one on, in whole units
        data = block.encode(codec, "surrogatepass")
        shifted = data[1 : 1 + (len(data) - 1) // 4 * 4].decode(codec, "ignore")
        if len(shifted) > len(block) // 4 and is_plausible(shifted):
            place = len(text[:start].encode(codec, "surrogatepass"))
            message = f"{name}: from about byte {place:,} on {display_name(codec)} is off by a byte"
            raise UserError(message, "a byte is missing before it, or one too many; fetch the file again", EXIT_INPUT)


def find_mark(data: bytes) -> str | None:
    """Name the encoding of the byte order mark that bytes begin with."""
    return next((codec for mark, codec in BYTE_ORDER_MARKS if data.startswith(mark)), None)


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


def read_as(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode with one codec as repair.read_as does; UserError: a forced one cannot read the bytes at all."""
    try:
        return repair.read_as(data, codec)
    except UnicodeError as problem:
        message = f"--encoding {codec}: the bytes do not fit it at all"
        raise UserError(message, "leave out --encoding to have it detected", EXIT_INPUT) from problem


def forced_codec(data: bytes, encoding: str) -> str:
    """Turn the user's name of an encoding into the codec that reads the most of its kind.

    >>> forced_codec(b"", "GBK"), forced_codec(b"", "UTF-16")
    ('gb18030', 'utf-16-le')
    """
    try:
        codec = codecs.lookup(encoding).name
        "a".encode(codec)  # fails for codecs that are no text encodings
    except (LookupError, ValueError) as problem:
        hint = "--encoding gb18030, big5, utf-8, utf-16-le or utf-16-be"
        raise UserError(f"--encoding: unknown encoding {encoding!r}", hint, EXIT_USAGE) from problem
    # a name without a byte order, and Big5 of either kind, are settled by the bytes
    mark = find_mark(data) or ""
    if codec in ("utf-16", "utf-32"):
        return mark if mark.startswith(codec) else codec + "-le"
    if family_of(codec) == "big5":
        return max(("cp950", "big5hkscs"), key=lambda candidate: reading_score(data, candidate))
    return {"utf-8-sig": "utf-8", **repair.FAMILIES}.get(codec, codec)


def choose_codec(data: bytes, mark: str | None, name: str) -> tuple[str, str]:
    """Pick the codec whose reading is clearly the likeliest, and say why in one sentence; raise when two are close."""
    marked = {"utf-8-sig": "utf-8"}.get(mark, mark)
    faultless = is_utf8(data)
    scores = {codec: reading_score(data, codec) for codec in candidates(data, faultless)}
    # a byte order mark speaks for its codec, and its absence against UTF-16 and UTF-32
    for codec in scores:
        scores[codec] += MARK_NATS if codec == marked else -MARK_NATS if codec in WIDE else 0.0
    # the runner-up is the best one of another family: cp950 and big5hkscs do not compete
    ranked = sorted(scores, key=scores.get, reverse=True)
    best = ranked[0]
    second = next(codec for codec in ranked if family_of(codec) != family_of(best))
    lead = scores[best] - scores[second]
    if best != marked and lead < (UTF8_MARGIN if best == "utf-8" and faultless else MARGIN):
        readings = ((codec, sample_of(read_as(data[:120], codec)[0])) for codec in (best, second))
        shown = ", ".join(f"{family_of(codec)} reads 「{text}」" for codec, text in readings)
        hint = f"--encoding {family_of(best)} or --encoding {family_of(second)}"
        raise UserError(f"{name}: encoding undecided: {shown}", hint, EXIT_INPUT)
    if best == marked:
        return best, f"a {best[:6].upper()} byte order mark"
    return best, f"reads as Chinese, far better than as {display_name(second)}"


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


def reading_score(data: bytes, codec: str) -> float:
    """Sum the log-probability of a small file, or of blocks spread over it, as a codec reads them, in nats."""
    blocks = [data]
    if len(data) > max(repair.SMALL_FILE, NUM_SAMPLES * SAMPLE):
        # Multiples of four: whole characters of UTF-16 and UTF-32.
        starts = [len(data) * part // NUM_SAMPLES & ~3 for part in range(NUM_SAMPLES)]
        blocks = [data[start : start + SAMPLE] for start in starts]
    if codec not in DOUBLE_BYTE or len(data) <= repair.SMALL_FILE:
        return sum(score(read_as(block, codec)[0]) for block in blocks)
    # a block may begin inside a character
    return sum(max(score(repair.plain_reading(block[skip:], codec)) for skip in (0, 1)) for block in blocks)


class TextStream:
    """Iterate over the text of a file in blocks of up to a million characters that never part a CRLF.

    Args:
        blocks: the bytes of the file, at least 4 and at most a mebibyte at a time.
        name, encoding: as for decode_bytes.

    Raises:
        UserError: while iterating: unreadable, empty, no text, undecided, too many bad bytes, or a change of encoding.
    """

    def __init__(self, blocks: Iterator[bytes], name: str, encoding: str | None = None):
        self.blocks = blocks
        self.name = name
        self.forced = encoding
        self.encoding = self.reason = ""
        self.num_bytes = 0  # decoded so far
        self.bad_bytes = 0
        self.bad_offsets: tuple[int, ...] = ()

    @property
    def decoded(self) -> Decoded:
        """How the file was read up to here, without its text."""
        return Decoded("", self.encoding, self.reason, self.bad_bytes, self.bad_offsets)

    def __iter__(self) -> Iterator[str]:
        rest = next(self.blocks, b"")
        if not rest:
            raise UserError(f"{self.name}: empty, expected the text of a novel", "give another file", EXIT_INPUT)
        codec = self.choose(rest)
        # what a block leaves unfinished, bytes of a character or the CR of a CRLF, goes before the next one
        held = ""
        for block in self.blocks:
            rest, unfinished = split_block(rest, codec)
            text = held + self.decode(rest, codec)
            held = "\r" if text.endswith("\r") else ""
            yield text.removesuffix("\r")
            rest = unfinished + block
        yield held + self.decode(rest, codec)
        refuse_bad_bytes(self.bad_bytes, self.bad_offsets, self.num_bytes, codec, self.name)

    def choose(self, head: bytes) -> str:
        """Decide the encoding by the beginning of the file."""
        refuse_foreign(head, self.name)
        if self.forced is not None:
            self.encoding, self.reason = self.forced, "--encoding says so"
            codec = forced_codec(head, self.forced)
            refuse_nonsense(head, read_as(head, codec)[0], self.forced, codec, self.name)
            return codec
        # ASCII reads the same in nearly every encoding: UTF-8 is believed until a block says otherwise
        if head.isascii() and b"\0" not in head:
            self.encoding, self.reason = "utf-8", "it begins with plain ASCII"
            return "utf-8"
        mark = find_mark(head)
        codec, self.reason = choose_codec(head, mark, self.name)
        self.encoding = reported_name(codec, mark)
        return codec

    def decode(self, data: bytes, codec: str) -> str:
        """Decode whole characters, keep count of bad bytes and judge the text."""
        text, offsets = read_as(data, codec)
        places = tuple(self.num_bytes + offset for offset in offsets[:MAX_OFFSETS])
        self.bad_offsets = (self.bad_offsets + places)[:MAX_OFFSETS]
        self.bad_bytes += len(offsets)
        text = drop_bad_bytes(text)
        if self.num_bytes == 0:
            text = text.removeprefix("\ufeff")

        # text that reads as nothing, or one bad byte in a hundred, means another encoding than at the beginning
        strange = codec != "utf-8" and len(text) >= MIN_JUDGED and not is_plausible(text)
        if self.forced is None and (strange or len(offsets) * 100 > len(data) >= MIN_JUDGED):
            message = f"{self.name}: {display_name(codec)} at first, something else from byte {self.num_bytes:,} on"
            hint = f"cut the file into parts of one encoding, or --encoding {family_of(codec)}"
            raise UserError(message, hint, EXIT_INPUT)
        self.num_bytes += len(data)
        return text


def split_block(data: bytes, codec: str) -> tuple[bytes, bytes]:
    """Split a block at its last line break, or else before an unfinished character.

    >>> split_block("萧炎".encode("gbk")[:3], "gb18030")
    (b'\\xcf\\xf4', b'\\xd1')
    """
    end = data.rfind(b"\n") + 1
    if codec in WIDE or end == 0:
        decoder = codecs.getincrementaldecoder(codec)("surrogatepass" if codec in WIDE else "surrogateescape")
        decoder.decode(data)
        end = len(data) - len(decoder.getstate()[0])
    return data[:end], data[end:]
