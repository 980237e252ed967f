"""A file too large for memory -> blocks of text, in the encoding that its beginning shows.

The first mebibyte decides; everything after is decoded as it comes, bad bytes dropped and counted. A block that no
longer reads as Chinese (chapters of another encoding further down) is an error, as one pass cannot look back.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path

from novelgpt.corpus.decoding import choose_codec, find_mark, forced_codec, reported_name
from novelgpt.corpus.inputs import name_of, read_blocks
from novelgpt.corpus.plausibility import is_plausible
from novelgpt.corpus.reading import MAX_OFFSETS, WIDE, Decoded, drop_escapes, family, read_as, refuse_bad_bytes, title
from novelgpt.messages import EXIT_INPUT, UserError

MIN_JUDGED = 1000  # characters; a shorter block is not judged alone


class TextStream:
    """Iterate over the text of a file in blocks of up to a million characters that never part a CRLF.

    Args:
        path: a file, `.gz` too, or "-" for standard input.
        encoding: forced encoding; None finds out.

    Raises:
        UserError: while iterating: unreadable, empty, undecided, too many bad bytes, or a change of encoding.
    """

    def __init__(self, path: str | Path, encoding: str | None = None):
        self.path = path
        self.forced = encoding
        self.name = name_of(path)
        self.encoding = self.reason = ""
        self.num_bytes = 0  # decoded so far
        self.bad_bytes = 0
        self.bad_offsets: tuple[int, ...] = ()

    @property
    def decoded(self) -> Decoded:
        """How the file was read up to here, without its text."""
        return Decoded("", self.encoding, self.reason, self.bad_bytes, self.bad_offsets)

    def __iter__(self) -> Iterator[str]:
        blocks = read_blocks(self.path)
        rest = next(blocks, b"")
        if not rest:
            raise UserError(f"{self.name}: empty, expected the text of a novel", "give another file", EXIT_INPUT)
        codec = self.choose(rest)
        held = ""
        for block in blocks:
            rest, unfinished = split_block(rest, codec)
            text = held + self.decode(rest, codec)
            held = "\r" if text.endswith("\r") else ""
            yield text.removesuffix("\r")
            rest = unfinished + block
        yield held + self.decode(rest, codec)
        refuse_bad_bytes(self.bad_offsets[:1] * self.bad_bytes, self.num_bytes, codec, self.name)

    def choose(self, head: bytes) -> str:
        """Decide the encoding by the beginning of the file."""
        if self.forced is not None:
            codec, self.encoding, self.reason = forced_codec(head, self.forced), self.forced, "--encoding says so"
            return codec
        if head.isascii() and b"\0" not in head:
            self.encoding, self.reason = "utf-8", "it begins with plain ASCII"
            return "utf-8"
        mark = find_mark(head)
        codec, self.reason = choose_codec(head, mark, self.name)
        self.encoding = reported_name(codec, mark)
        return codec

    def decode(self, data: bytes, codec: str) -> str:
        """Decode whole characters, keep the accounts and judge the text."""
        text, offsets = read_as(data, codec)
        places = tuple(self.num_bytes + offset for offset in offsets[:MAX_OFFSETS])
        self.bad_offsets = (self.bad_offsets + places)[:MAX_OFFSETS]
        self.bad_bytes += len(offsets)
        text = drop_escapes(text)
        if self.num_bytes == 0:
            text = text.removeprefix("\ufeff")
        strange = codec != "utf-8" and len(text) >= MIN_JUDGED and not is_plausible(text)
        if self.forced is None and (strange or len(offsets) * 100 > len(data) >= MIN_JUDGED):
            message = f"{self.name}: from byte {self.num_bytes:,} on no longer {title(codec)}, as its beginning is"
            hint = f"cut the file into parts of one encoding, or --encoding {family(codec)}"
            raise UserError(message, hint, EXIT_INPUT)
        self.num_bytes += len(data)
        return text


def split_block(data: bytes, codec: str) -> tuple[bytes, bytes]:
    """Part a block at its last line break, or else before an unfinished character.

    >>> split_block("萧炎".encode("gbk")[:3], "gb18030")
    (b'\\xcf\\xf4', b'\\xd1')
    """
    end = data.rfind(b"\n") + 1
    if codec in WIDE or end == 0:
        decoder = codecs.getincrementaldecoder(codec)("surrogatepass" if codec in WIDE else "surrogateescape")
        decoder.decode(data)
        end = len(data) - len(decoder.getstate()[0])
    return data[:end], data[end:]
