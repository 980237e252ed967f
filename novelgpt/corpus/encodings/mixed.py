"""Chapters of several encodings pasted into one file -> which lines are in which encoding.

Every line is scored in UTF-8, GB18030 and Big5, and the likeliest sequence of encodings is found with a cost for each
change (the Viterbi algorithm), so that short lines follow their neighbours::

    line          1    2    3    4    5
    GB18030     -70  -31 -190  -25 -320     nats
    Big5       -140  -35 -110  -22 -180
    chosen       GB   GB Big5 Big5 Big5

A line that is still garbled may change its encoding midway. Its bytes are parsed by dynamic programming as in
repair.py, but in several encodings at once, with the same cost for each change::

    bytes     C4E3BAC3 | A741A66EA140B14DA67E
    GB18030   你好       ЙΖ釦盋甀          no prose
    Big5      斕疑       你好，專年         no better than the first half in GB18030
    by turns  你好       你好，專年
"""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from novelgpt.corpus.encodings import likelihood, repair
from novelgpt.corpus.encodings.likelihood import (
    CHANGE_NATS,
    is_plausible,
    is_prose,
    likeliest_path,
    nats_of,
    score,
    sliding_sums,
    unicode_codes,
)
from novelgpt.corpus.encodings.repair import family_of

BAD_RUN = re.compile("[\udc80-\udcff]+")
GARBLED = 4  # places in a line that read as nothing
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
BLOCK = 1 << 20  # bytes, at least, of a block of lines
RUN = 4  # neighbouring characters
RUN_NATS = -11.5  # nats per character in a run that reads as nothing
RARE_NATS = -9.0  # nats that no character of such a run reaches
PROSE_RUN, PROSE_NATS = 6, -8.5  # neighbouring characters, and nats for each of them where they may be prose
INNER_NATS = 40.0  # nats by which another encoding must explain a stretch better
CLEAR_NATS = 100.0  # the same where the main encoding reads it as Chinese, too


class Reading(NamedTuple):
    """A file as read line by line."""

    text: str
    bad_offsets: list[int]
    segments: tuple[tuple[int, int, str], ...] = ()  # (first line from 1, last line, codec); none in a single encoding
    torn_lines: tuple[int, ...] = ()  # from 1; garbled, or partly in another encoding: U+FFFD for what cannot be read


def decode_mixed(data: bytes, main: str, text: str, bad_offsets: list[int]) -> Reading:
    """Decode a file line by line in several encodings.

    Args:
        data: the file.
        main, text, bad_offsets: the codec that reads most of it, and its reading in that codec.
    """
    codecs = (main, *(codec for codec in ("utf-8", "gb18030", "big5hkscs") if family_of(codec) != family_of(main)))
    lines = data.splitlines(keepends=True)
    found = choose_segments(data, lines, codecs, text)

    # each segment is read in its own encoding; a file of a single one has been read already
    texts, bad, torn, start = [], [], [], 0
    for first, last, codec in found:
        is_read = len(found) == 1 and codec == main
        reading = (text, bad_offsets) if is_read else repair.read_as(b"".join(lines[first : last + 1]), codec)
        order = (codec, *(other for other in codecs if other != codec))
        part, offsets, numbers = read_torn_lines(lines[first : last + 1], *reading, order)
        torn += [first + number for number in numbers]
        texts.append(part)
        bad += [start + offset for offset in offsets]
        start += sum(map(len, lines[first : last + 1]))
    is_mixed = len(found) > 1 or found[0][2] != main
    segments = [(first + 1, last + 1, family_of(codec)) for first, last, codec in found if is_mixed]
    return Reading("".join(texts), bad, tuple(segments), tuple(torn))


def choose_segments(data: bytes, lines: list[bytes], codecs: tuple[str, ...], text: str) -> list[tuple[int, int, str]]:
    """Divide the lines as find_segments does, but give back to the main codec what is not clearly in another."""
    main, found = codecs[0], []
    for first, last, codec in find_segments(data, codecs, text):
        if codec != main and not is_foreign(b"".join(lines[first : last + 1]), codec, main):
            codec = main
        if found and found[-1][2] == codec:
            first = found.pop()[0]
        found.append((first, last, codec))
    return found


def read_torn_lines(
    lines: list[bytes], text: str, bad_offsets: list[int], codecs: tuple[str, ...]
) -> tuple[str, list[int], list[int]]:
    """Read the lines of a segment that are garbled or partly in another encoding than its own, the first of the codecs.

    Returns the text, in which U+FFFD stands for each run of their bad bytes, the offsets of all bad bytes, and the
    numbers of these lines, from 1.
    """
    places = lines_with_rare_runs(text)
    if not places:
        return text, bad_offsets, []
    readings, torn, bad = split_lines(text), [], bad_offsets
    starts = list(itertools.accumulate(map(len, lines), initial=0))
    for index in places:
        if turned := read_by_turns(lines[index], codecs):
            start, end = starts[index : index + 2]
            bad = [place for place in bad if not start <= place < end] + [start + offset for offset in turned[1]]
            readings[index] = turned[0]
        elif not is_garbled(readings[index]):
            continue
        readings[index] = BAD_RUN.sub("\ufffd", readings[index])
        torn.append(index + 1)
    return "".join(readings) if torn else text, sorted(bad), torn


def is_garbled(line: str) -> bool:
    """Say whether a line has bad bytes and, apart from them, characters that read as nothing."""
    return repair.has_bad_bytes(line) and len(strange_places(nats_of(repair.drop_bad_bytes(line)))) >= GARBLED


def lines_with_rare_runs(text: str) -> list[int]:
    """Number the lines, from 0, that hold a run of characters none of which is frequent."""
    codes = unicode_codes(text)
    return np.unique(np.searchsorted(likelihood.line_ends(codes), strange_places(nats_of(text)), side="right")).tolist()


def split_lines(text: str) -> list[str]:
    r"""Split where bytes.splitlines does, ends kept: after LF, CRLF or a CR alone and nowhere else.

    >>> split_lines("a\r\nb\rc\u2028d")
    ['a\r\n', 'b\r', 'c\u2028d']
    """
    return LINE.findall(text)


def line_blocks(data: bytes) -> Iterator[bytes]:
    r"""Yield the bytes in blocks of whole lines, so that the scores of a few characters at a time are held.

    >>> [len(block) for block in line_blocks(b"a" * (BLOCK + 1) + b"\nb")] == [BLOCK + 2, 1]
    True
    """
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + BLOCK) + 1 or len(data)
        yield data[start:end]
        start = end


def find_segments(data: bytes, codecs: tuple[str, ...], text: str) -> list[tuple[int, int, str]]:
    """List the segments, (first line from 0, last line, codec), of a file that the first codec has read as `text`."""
    scores = [likelihood.line_sums(nats_of(text), unicode_codes(text))]
    for codec in codecs[1:]:
        # "replace" is far faster than lone surrogates, and as unlikely
        parts = (block.decode(codec, "replace") for block in line_blocks(data))
        scores.append(np.concatenate([likelihood.line_sums(nats_of(part), unicode_codes(part)) for part in parts]))
    path = likeliest_path(np.stack(scores, axis=1))  # (num_lines,)
    borders = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [(start, end - 1, codecs[path[start]]) for start, end in itertools.pairwise(borders)]


def strange_places(nats: np.ndarray) -> np.ndarray:
    """Find where RUN neighbouring characters are all rare and together very rare."""
    rare = sliding_sums(nats < RARE_NATS, RUN) > RUN - 0.5
    return np.flatnonzero(rare & (sliding_sums(nats, RUN) < RUN * RUN_NATS))


def is_foreign(raw: bytes, codec: str, main: str) -> bool:
    """Say whether bytes read as Chinese in a codec, by far better than in the main one."""
    reading, main_reading = (raw.decode(name, "surrogateescape") for name in (codec, main))
    # of two double-byte encodings each reads something: signs and rules of one are words of the other
    if not (is_plausible(reading) if "utf-8" in (codec, main) else is_prose(reading)):
        return False
    return score(reading) > score(main_reading) + (CLEAR_NATS if is_plausible(main_reading) else INNER_NATS)


def has_prose(raw: bytes, codec: str) -> bool:
    """Say whether some run within bytes reads as Chinese in a codec, whatever stands before it."""
    for skip in (0, 1) if codec != "utf-8" else (0,):
        text = raw[skip:].decode(codec, "surrogateescape")
        nats = np.where(unicode_codes(text) > 0x7F, nats_of(text), RUN_NATS)
        if (sliding_sums(nats, PROSE_RUN)[: 1 - PROSE_RUN] > PROSE_NATS * PROSE_RUN).any():
            return True
    return False


def read_by_turns(raw: bytes, codecs: tuple[str, ...]) -> tuple[str, list[int]] | None:
    """Read a line in several encodings, the main one first: text and offsets of bad bytes; None if it is in that alone.

    >>> line = "却说玄德见了".encode("gb18030") + "，天下大勢，分久必合".encode("big5")
    >>> read_by_turns(line, ("gb18030", "utf-8", "big5hkscs"))
    ('却说玄德见了，天下大勢，分久必合', [])
    """
    if not any(has_prose(raw, codec) for codec in codecs[1:]):
        return None
    parts, bad, start, is_torn = [], [], 0, False
    for size, codec in stretches(raw, codecs):
        text, offsets = repair.read_as(raw[start : start + size], codec)
        parts.append(text)
        bad += [start + offset for offset in offsets]
        start, is_torn = start + size, is_torn or codec != codecs[0]
    return ("".join(parts), bad) if is_torn else None


def stretches(raw: bytes, codecs: tuple[str, ...]) -> list[tuple[int, str]]:
    """Divide a line, perhaps a whole book, into stretches, (bytes, codec), as long as each codec is believed."""
    found, start = [], 0
    while start < len(raw):
        section = raw[start : start + repair.SECTION]
        last = start + len(section) == len(raw)
        used = 0 if last else sound_bytes(section, codecs[0])
        turns = [(used, codecs[0])] if used else believed(section, parse_turns(section, codecs), codecs[0], last=last)
        found += turns
        start += sum(size for size, _ in turns)
    return join_turns(found)


def sound_bytes(section: bytes, codec: str) -> int:
    """Count the bytes of the whole characters of a section in one codec; 0 if something in it is strange."""
    sound = repair.sound_reading(section, codec)
    return sound[1] if sound and not len(strange_places(nats_of(sound[0]))) else 0


def believed(section: bytes, steps: list[tuple[int, str]], main: str, *, last: bool) -> list[tuple[int, str]]:
    """Join the steps of a parse, but give back to the main codec what is not clearly in another.

    The end of a section may lie inside a character: unless it is the last, the next one parses it again.
    """
    if not last:
        ends = itertools.accumulate(size for size, _ in steps)
        steps = [step for step, end in zip(steps, ends, strict=True) if end <= len(section) - repair.OVERLAP]
    turns, start = [], 0
    for size, codec in join_turns(steps):
        is_main = codec == main or not is_foreign(section[start : start + size], codec, main)
        turns.append((size, main if is_main else codec))
        start += size
    return join_turns(turns)


def join_turns(turns: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Join neighbouring stretches of one codec.

    >>> join_turns([(2, "big5"), (1, "big5"), (2, "gb18030")])
    [(3, 'big5'), (2, 'gb18030')]
    """
    groups = itertools.groupby(turns, key=lambda turn: turn[1])
    return [(sum(size for size, _ in group), codec) for codec, group in groups]


def parse_turns(data: bytes, codecs: tuple[str, ...]) -> list[tuple[int, str]]:
    """Parse bytes in encodings that take turns, at CHANGE_NATS a turn: (bytes, codec) of each step, the likeliest."""
    pairs = [likelihood.pair_nats(codec) if codec != "utf-8" else None for codec in codecs]
    best = [[0.0] * (len(data) + 1) for _ in codecs]  # nats before each byte, by encoding
    width = [[0] * (len(data) + 1) for _ in codecs]  # bytes of the last step; 0: another encoding's parse is taken over
    leader = [0] * (len(data) + 1)  # the best encoding before each byte
    for end in range(1, len(data) + 1):
        for which, codec in enumerate(codecs):
            step = utf8_step if codec == "utf-8" else pair_step
            best[which][end], width[which][end] = step(data, end, best[which], width[which], pairs[which])
        leader[end] = max(range(len(codecs)), key=lambda which: best[which][end])
        change = best[leader[end]][end] - CHANGE_NATS
        for sums, steps in zip(best, width, strict=True):
            if sums[end] < change:
                sums[end], steps[end] = change, 0
    # back along the likeliest parse
    found, end, which = [], len(data), leader[-1]
    while end:
        size = width[which][end]
        if size:
            found.append((size, codecs[which]))
            end -= size
        else:
            which = leader[end]
    return found[::-1]


def byte_step(data: bytes, end: int, best: list[float], width: list[int]) -> tuple[float, int]:
    """Give nats and size of a parse whose last step is one byte: ASCII, or a bad one, likelier behind another."""
    byte = data[end - 1]
    is_run = byte >= 0x80 and width[end - 1] == 1 and data[end - 2] >= 0x80
    return best[end - 1] + likelihood.byte_nats()[byte] + repair.AFTER_BAD * is_run, 1


def pair_step(data: bytes, end: int, best: list[float], width: list[int], pairs: list[float]) -> tuple[float, int]:
    """Give nats and size of the likeliest parse that ends here in a double-byte encoding."""
    single = byte_step(data, end, best, width)
    if end < 2 or data[end - 1] < 0x40:
        return single
    return max(single, (best[end - 2] + pairs[data[end - 2] << 8 | data[end - 1]], 2))


def utf8_step(data: bytes, end: int, best: list[float], width: list[int], _pairs: None) -> tuple[float, int]:
    """Give nats and size of the likeliest parse that ends here in UTF-8."""
    single = byte_step(data, end, best, width)
    for size in (2, 3, 4) if data[end - 1] >> 6 == 2 else ():
        char = data[max(0, end - size) : end].decode("utf-8", "ignore")
        if len(char) == 1 and len(char.encode()) == size:
            return max(single, (best[end - size] + likelihood.nats_list()[min(ord(char), likelihood.ASTRAL)], size))
    return single
