"""A file too large for memory -> blocks of text, in the encoding that its beginning shows.

    bytes, 1 MiB at a time ── TextStream ──> up to a million characters ── cut_blocks ──> blocks that end like texts

The first mebibyte decides the encoding; everything after is decoded as it comes, bad bytes dropped and counted. A block
that no longer reads as Chinese (chapters of another encoding further down) is an error, as one pass cannot look back.
"""

import codecs
import re
from collections.abc import Iterable, Iterator

from novelgpt.corpus.encodings import detect, repair
from novelgpt.corpus.encodings.likelihood import is_plausible
from novelgpt.corpus.encodings.repair import MAX_OFFSETS, WIDE, Decoded, display_name, family_of
from novelgpt.messages import EXIT_INPUT, UserError

MIN_JUDGED = 1000  # characters; a shorter block is not judged alone
LINE_END = re.compile(r"\n|\r(?!\Z)")
SENTENCE_END = re.compile(r"[。！？!?…][”’」』）)]*")


class TextStream:
    """Iterate over the text of a file in blocks of up to a million characters that never part a CRLF.

    Args:
        blocks: the bytes of the file, at least 4 and at most a mebibyte at a time.
        name: the file's name for messages.
        encoding: forced encoding; None detects it.

    Attributes:
        decoded: how the file was read up to here, without its text.

    Raises:
        UserError: while iterating: unreadable, empty, undecided, too many bad bytes, or a change of encoding.
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
        repair.refuse_bad_bytes(self.bad_offsets[:1] * self.bad_bytes, self.num_bytes, codec, self.name)

    def choose(self, head: bytes) -> str:
        """Decide the encoding by the beginning of the file."""
        if self.forced is not None:
            self.encoding, self.reason = self.forced, "--encoding says so"
            return detect.forced_codec(head, self.forced)
        # ASCII reads the same in nearly every encoding: UTF-8 is believed until a block says otherwise
        if head.isascii() and b"\0" not in head:
            self.encoding, self.reason = "utf-8", "it begins with plain ASCII"
            return "utf-8"
        mark = detect.find_mark(head)
        codec, self.reason = detect.choose_codec(head, mark, self.name)
        self.encoding = detect.reported_name(codec, mark)
        return codec

    def decode(self, data: bytes, codec: str) -> str:
        """Decode whole characters, keep count of bad bytes and judge the text."""
        text, offsets = repair.read_as(data, codec)
        places = tuple(self.num_bytes + offset for offset in offsets[:MAX_OFFSETS])
        self.bad_offsets = (self.bad_offsets + places)[:MAX_OFFSETS]
        self.bad_bytes += len(offsets)
        text = repair.drop_bad_bytes(text)
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


def cut_blocks(texts: Iterable[str], *, size: int, before: re.Pattern[str] = LINE_END) -> Iterator[str]:
    """Join the texts of a stream into blocks that end where a text may end.

    A block ends where the last match of `before` in its second half ends, else after the last line end, else after the
    last sentence, else where it is full. A paragraph cut at the end of a sentence goes on in the next block.

    Args:
        texts: a text in parts of any length.
        size: characters in a block, at most.
        before: matches up to where a block should rather begin, as in front of a chapter heading.

    >>> list(cut_blocks(["他走了\\n她", "来了。\\n我不走。"], size=6))
    ['他走了\\n', '她来了。\\n', '我不走。']
    """
    text = ""
    for part in texts:
        text += part
        while len(text) >= 2 * size:
            cut = find_cut(text[:size], before)
            yield text[:cut]
            text = text[cut:]
    while len(text) > size:
        cut = find_cut(text[:size], before)
        yield text[:cut]
        text = text[cut:]
    if text:
        yield text


def find_cut(text: str, before: re.Pattern[str] = LINE_END) -> int:
    """Choose where a full block ends; see cut_blocks.

    >>> find_cut("他走了。她来了"), find_cut("他走了\\n她来了")
    (4, 4)
    """
    half = len(text) // 2
    # the last match of the best kind of ending: a block should be full
    for pattern in (before, LINE_END, SENTENCE_END):
        ends = [match.end() for match in pattern.finditer(text, half)]
        if ends:
            return ends[-1]
    return len(text)
