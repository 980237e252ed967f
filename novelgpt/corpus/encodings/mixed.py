"""Chapters of several encodings pasted into one file -> which lines are in which encoding.

Every line is scored in UTF-8, GB18030 and Big5, and the likeliest sequence of encodings is found with a cost for each
change (the Viterbi algorithm), so that short lines follow their neighbours::

    line          1    2    3    4    5
    GB18030     -70  -31 -190  -25 -320     nats
    Big5       -140  -35 -110  -22 -180
    chosen       GB   GB Big5 Big5 Big5

A line that is still garbled is read by turns (turns.py).
"""

import itertools
import re
from typing import NamedTuple

import numpy as np

from novelgpt.corpus.encodings import likelihood, repair
from novelgpt.corpus.encodings.likelihood import likeliest_path, nats_of, unicode_codes
from novelgpt.corpus.encodings.repair import family_of
from novelgpt.corpus.encodings.turns import is_foreign, read_by_turns, strange_places

BAD_RUN = re.compile("[\udc80-\udcff]+")
GARBLED = 4  # places in a line that read as nothing
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


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
        raw = b"".join(lines[first : last + 1])
        reading = (text, bad_offsets) if len(found) == 1 and codec == main else repair.read_as(raw, codec)
        order = (codec, *(other for other in codecs if other != codec))
        part, offsets, numbers = read_torn_lines(lines[first : last + 1], *reading, order)
        torn += [first + number for number in numbers]
        texts.append(part)
        bad += [start + offset for offset in offsets]
        start += len(raw)
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
    readings, torn, bad = split_lines(text), [], bad_offsets
    starts = list(itertools.accumulate(map(len, lines), initial=0))
    for index in lines_with_rare_runs(text):
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


def find_segments(data: bytes, codecs: tuple[str, ...], text: str) -> list[tuple[int, int, str]]:
    """List the segments, (first line from 0, last line, codec), of a file that the first codec has read as `text`."""
    scores = []
    for codec in codecs:
        if codec != codecs[0]:
            text = data.decode(codec, "replace")  # far faster than lone surrogates, and as unlikely
        scores.append(likelihood.line_sums(nats_of(text), unicode_codes(text)))
    path = likeliest_path(np.stack(scores, axis=1))  # (num_lines,)
    borders = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [(start, end - 1, codecs[path[start]]) for start, end in itertools.pairwise(borders)]
