"""Which encoding bytes are in: every one that Chinese books come in reads them, and the likeliest reading wins.

"The first that does not raise" would be wrong: GB18030 accepts nearly every Big5 file.
"""

import codecs

from novelgpt.corpus.encodings import repair
from novelgpt.corpus.encodings.likelihood import score, unicode_codes
from novelgpt.corpus.encodings.repair import DOUBLE_BYTE, display_name, drop_bad_bytes, family_of
from novelgpt.corpus.encodings.wide import WIDE, read_whole_units, read_wide
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, printable

BYTE_ORDER_MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WESTERN = "cp1252"  # Windows's, of English books: dashes and quotation marks
CANDIDATES = ("utf-8", *DOUBLE_BYTE, "utf-16-le", "utf-16-be")

MARGIN = 20.0  # nats by which a reading must be likelier than the next
UTF8_MARGIN = 8.0  # the same for UTF-8 without a fault
UTF8_BYTES = 32  # this many bytes of UTF-16 are never valid UTF-8 without a NUL
MARK_NATS = 30.0  # nats a byte order mark counts for, and its absence against UTF-16 and UTF-32
ASCII = bytes(range(128))
MOSTLY_ASCII = 0.02  # share of a file's bytes beyond ASCII; then Western signs are among the candidates
ASCII_BUT_FOR_LITTLE = 0.001  # the same; so little is read in the likeliest encoding without a clear lead
NUM_SAMPLES, SAMPLE = 8, 1 << 13  # this many stretches of this many bytes are compared in a file that is not small


def find_mark(data: bytes) -> str | None:
    """Name the encoding of the byte order mark that bytes begin with."""
    return next((codec for mark, codec in BYTE_ORDER_MARKS if data.startswith(mark)), None)


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
        return choose_big5(data)
    return {"utf-8-sig": "utf-8", **repair.FAMILIES}.get(codec, codec)


def choose_codec(data: bytes, mark: str | None, name: str) -> tuple[str, str]:
    """Pick the codec whose reading is clearly the likeliest, and say why in one sentence; raise when two are close."""
    marked = {"utf-8-sig": "utf-8"}.get(mark, mark)
    faultless = is_utf8(data)
    tried, compared, share = candidates(data, faultless), data, strange_share(data)
    if is_mostly_ascii(data):
        compared = b"".join(line for line in data.splitlines(keepends=True) if not line.isascii())
        tried += (WESTERN,)
    scores = {codec: reading_score(compared, codec) for codec in tried}
    # a byte order mark speaks for its codec, and its absence against UTF-16 and UTF-32
    for codec in scores:
        scores[codec] += MARK_NATS if codec == marked else -MARK_NATS if codec in WIDE else 0.0
    # the runner-up is the best one of another family: cp950 and big5hkscs do not compete
    ranked = sorted(scores, key=scores.get, reverse=True)
    best = ranked[0]
    second = next(codec for codec in ranked if family_of(codec) != family_of(best))
    lead = scores[best] - scores[second]
    best = choose_big5(data) if family_of(best) == "big5" else best
    if best == WESTERN or (compared is not data and share <= ASCII_BUT_FOR_LITTLE):
        return best, f"plain ASCII but for {share:.2%}, likeliest as {display_name(best)}"
    if best != marked and lead < (UTF8_MARGIN if best == "utf-8" and faultless else MARGIN):
        readings = ((codec, sample_of(read_as(data[:120], codec)[0])) for codec in (best, second))
        shown = ", ".join(f"{family_of(codec)} reads 「{text}」" for codec, text in readings)
        hint = f"--encoding {family_of(best)} or --encoding {family_of(second)}"
        raise UserError(f"{name}: encoding undecided: {shown}", hint, EXIT_INPUT)
    if best == marked:
        return best, f"a {best[:6].upper()} byte order mark"
    return best, f"reads as Chinese, far better than as {display_name(second)}"


def is_mostly_ascii(data: bytes) -> bool:
    """Say whether few bytes of a text, but some, are beyond ASCII."""
    return 0 < strange_share(data) <= MOSTLY_ASCII and b"\0" not in data


def strange_share(data: bytes) -> float:
    """Return the share, 0 to 1, of the bytes beyond ASCII."""
    return len(data.translate(None, ASCII)) / max(1, len(data))


def choose_big5(data: bytes) -> str:
    """Choose the kind of Big5: Windows's unless Hong Kong's, which knows more characters, reads something better."""
    windows = repair.plain_reading(data, "cp950")
    codes = unicode_codes(windows)
    # where the two differ Windows's reads bad bytes, kana, Russian letters or numbers in circles
    ranges = ((0xDC80, 0xDD00), (0x3041, 0x3100), (0x3005, 0x3006), (0x401, 0x452), (0x2460, 0x247D))
    if not any((codes - first < end - first).any() for first, end in ranges):
        return "cp950"
    return "big5hkscs" if score(repair.plain_reading(data, "big5hkscs")) > score(windows) + 0.1 else "cp950"


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
    if len(data) <= repair.SMALL_FILE or codec not in (*DOUBLE_BYTE, *WIDE):
        return sum(score(read_as(block, codec)[0]) for block in blocks)
    # a block may begin inside a character, or behind a lost byte
    read = read_whole_units if codec in WIDE else repair.plain_reading
    skips = range(4 if codec.startswith("utf-32") else 2)
    return sum(max(score(read(block[skip:], codec)) for skip in skips) for block in blocks)


def read_as(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode with one codec as repair and wide do; UserError: a forced one cannot read the bytes at all."""
    try:
        return read_wide(data, codec) if codec in WIDE else repair.read_as(data, codec)
    except UnicodeError as problem:
        message = f"--encoding {codec}: the bytes do not fit it at all"
        raise UserError(message, "leave out --encoding to have it detected", EXIT_INPUT) from problem


def sample_of(text: str) -> str:
    """Return the beginning of a reading in one line, as a message shows it."""
    return printable(" ".join(drop_bad_bytes(text[:1000]).replace("\ufeff", "").split())[:20])
