"""Texts -> the list of tokens a model knows; the place in the list is the token's id.

The character kind, which this module builds, is laid out like this::

    [PAD] [UNK] [CLS] [SEP] [MASK]        the five marks
    [unused1] [unused2] ...               reserved for marks that a later fine-tuning adds
    <0x00> ... <0xFF>                     the 256 bytes: ASCII, the newline, and what no character token covers
    的 一 ，...                            characters

A vocabulary without byte tokens is BERT's, of the WordPiece kind; see loading.py for the files.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from novelgpt.messages import EXIT_USAGE, UserError

MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
UNUSED = re.compile(r"\[unused[0-9]{1,9}\]")  # a reserved token; int() of thousands of digits would fail
SMALL_SIZE = 13_317  # tokens of cache/vocab_small.txt
SMALL_RESERVED = 100  # [unusedN] of cache/vocab_small.txt


def is_mark_name(token: str) -> bool:
    """Tell whether a token can be a mark: two or more characters in [brackets] or <brackets>.

    >>> is_mark_name("[CLS]"), is_mark_name("<|say|>"), is_mark_name("萧炎")
    (True, True, False)
    """
    return len(token) > 3 and token[0] + token[-1] in ("[]", "<>")


def split_names(text: str | None) -> list[str]:
    """Split the value of `--add_tokens` at its commas; None has no names.

    >>> split_names("[TIL], [WS]"), split_names(None)
    (['[TIL]', '[WS]'], [])
    """
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def find_marks(tokens: Sequence[str]) -> dict[str, int]:
    """Map every mark, added tokens included, to its id; reserved [unusedN] and byte tokens are not marks.

    >>> find_marks(["[CLS]", "[unused1]", "<0x0A>", "的", "[对话]"])
    {'[CLS]': 0, '[对话]': 4}
    """
    plain = set(BYTE_TOKENS)
    return {
        token: index
        for index, token in enumerate(tokens)
        if token in MARKS or (is_mark_name(token) and token not in plain and not UNUSED.fullmatch(token))
    }


def add_names(tokens: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return a vocabulary with further marks: in reserved [unusedN] places while there are any, then at the end.

    Raises:
        UserError: a name that is not two or more characters in [brackets] or <brackets>, or holds a newline.

    >>> add_names(["[unused1]", "的"], ["[对话]", "<end>"])
    ['[对话]', '的', '<end>']
    """
    tokens = list(tokens)
    free = [index for index, token in enumerate(tokens) if UNUSED.fullmatch(token)][::-1]  # the first one last, for pop
    for name in names:
        if not is_mark_name(name) or "\n" in name or UNUSED.fullmatch(name) or name in BYTE_TOKENS:
            hint = "write it like [对话] or <end>"
            message = f"added token {name!r}: expected two or more characters in [brackets] or <brackets>"
            raise UserError(message, hint, EXIT_USAGE)
        if name in tokens:  # already a mark; its id stays
            continue
        if free:
            tokens[free.pop()] = name
        else:
            tokens.append(name)
    return tokens


def pad_tokens(tokens: Sequence[str], size: int) -> list[str]:
    """Return a vocabulary with further reserved tokens at its end, up to a size.

    >>> pad_tokens(["[CLS]", "[unused7]"], 4)
    ['[CLS]', '[unused7]', '[unused8]', '[unused9]']
    """
    # numbers continue after the highest one in use, so that no name occurs twice
    first = 1 + max((int(token[7:-1]) for token in tokens if UNUSED.fullmatch(token)), default=0)
    return [*tokens, *(f"[unused{first + number}]" for number in range(size - len(tokens)))]


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Count every character of some texts.

    >>> count_characters(["好好", "学"])
    Counter({'好': 2, '学': 1})
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return counts


def first_tokens(reserved: int) -> list[str]:
    """Return what comes before the characters: marks, reserved tokens, bytes."""
    return [*MARKS, *(f"[unused{number}]" for number in range(1, reserved + 1)), *BYTE_TOKENS]


def build_vocabulary(
    texts: Iterable[str] | Mapping[str, int], *, vocab_size: int | None = None, min_count: int = 1, reserved: int = 20
) -> list[str]:
    """Fit a character vocabulary to some texts.

    Args:
        texts: documents, or the counts that count_characters made of them.
        vocab_size: at most this many tokens, the most frequent characters first; None takes all.
        min_count: leave characters that occur less often to their bytes.
        reserved: how many [unusedN] tokens to keep free for added tokens.

    Returns:
        Marks, reserved tokens, bytes, then characters by falling count, ties by code point. ASCII stays with its byte
        tokens.

    Raises:
        UserError: vocab_size leaves no room for marks and bytes.

    >>> build_vocabulary(["萧炎大喝，萧炎"], reserved=0)[-5:]
    ['炎', '萧', '喝', '大', '，']
    """
    # what every vocabulary has
    start = first_tokens(reserved)
    if vocab_size is not None and vocab_size < len(start):
        raise UserError(
            f"--vocab_size: found {vocab_size}, expected at least {len(start)} "
            f"({len(MARKS)} marks, {reserved} reserved, 256 bytes)",
            f"--vocab_size {SMALL_SIZE}",
            EXIT_USAGE,
        )
    # the most frequent characters in the places that are left
    counts = texts if isinstance(texts, Mapping) else count_characters(texts)
    wanted = [char for char, count in counts.items() if count >= min_count and is_character_token(char)]
    wanted.sort(key=lambda char: (-counts[char], char))
    return start + wanted[: None if vocab_size is None else vocab_size - len(start)]


def is_character_token(char: str) -> bool:
    """Tell whether a character may have a token of its own: beyond ASCII and no surrogate."""
    return char > "\x7f" and not "\ud800" <= char <= "\udfff"


def small_vocabulary() -> list[str]:
    """Build the tokens of cache/vocab_small.txt: 13,317, for any Chinese novel, from Python's own codecs alone.

    In this order, each character once: the whole of GB2312; the punctuation of GBK's first nine rows (— and · among it,
    which Python's GB2312 maps elsewhere); Big5's symbols and its level 1 (common traditional characters); and of its
    level 2 as many as fit, first those that the Japanese or the Korean standard has too, for these occur in texts.

    >>> len(small_vocabulary())
    13317
    """
    level2 = decode_rows("big5", 0xC9, 0xF9)
    shared = {*decode_rows("euc_jp", 0xB0, 0xF4), *decode_rows("euc_kr", 0xCA, 0xFD)}
    characters = [
        *decode_rows("gb2312", 0xA1, 0xF7),
        *decode_rows("gbk", 0xA1, 0xA9),
        *decode_rows("big5", 0xA1, 0xC8),
        *sorted(level2, key=lambda char: char not in shared),  # sorting is stable: by code within both groups
    ]
    # dict.fromkeys keeps the first place of each character
    return [*first_tokens(SMALL_RESERVED), *dict.fromkeys(characters)][:SMALL_SIZE]


def decode_rows(codec: str, first: int, last: int) -> list[str]:
    """List the characters of a two-byte code, by code, whose first byte lies between two values.

    >>> decode_rows("gb2312", 0xB0, 0xB0)[:4]
    ['啊', '阿', '埃', '挨']
    """
    pairs = (bytes([lead, trail]) for lead in range(first, last + 1) for trail in trail_bytes(codec))
    return [char for pair in pairs if is_character_token(char := pair.decode(codec, "replace")[0]) and char != "\ufffd"]


def trail_bytes(codec: str) -> Iterator[int]:
    """Yield the second bytes of the two-byte codes: the upper half, and for Big5 part of the lower."""
    if codec == "big5":
        yield from range(0x40, 0x7F)  # up to 0x7E
    yield from range(0xA1, 0xFF)  # up to 0xFE
