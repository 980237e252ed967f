"""Chapters of several encodings pasted into one file -> which lines are in which encoding.

Every line is scored in UTF-8, GB18030 and Big5, and the likeliest sequence of encodings is found with a cost for each
change (the Viterbi algorithm), so that short lines follow their neighbours::

    line          1    2    3    4    5
    GB18030     -70  -31 -190  -25 -320     nats
    Big5       -140  -35 -110  -22 -180
    chosen       GB   GB Big5 Big5 Big5
"""

import itertools
import re
from typing import NamedTuple

import numpy as np

from novelgpt.corpus.encodings import likelihood, repair
from novelgpt.corpus.encodings.likelihood import nats_of, score, sliding_sums, unicode_codes
from novelgpt.corpus.encodings.repair import family_of
from novelgpt.messages import EXIT_INPUT, UserError

BAD_RUN = re.compile("[\udc80-\udcff]+")
MAX_TORN_SHARE = 0.01  # of a file's bytes, in lines that change their encoding midway
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
CHANGE_NATS = 25.0  # cost of a change of encoding from one line to the next
RUN = 4  # neighbouring characters
RUN_NATS = -11.5  # nats per character in a run that reads as nothing
RARE_NATS = -9.0  # nats that no character of such a run reaches
INNER_NATS = 40.0  # nats by which changes of encoding must explain a stretch better, their cost apart
AROUND = 16  # characters on either side of such a run that are parsed with it


class Reading(NamedTuple):
    """A file as read line by line."""

    text: str
    bad_offsets: list[int]
    segments: tuple[tuple[int, int, str], ...]  # (first line from 1, last line, encoding); none in a single encoding
    torn_lines: list[int]  # from 1; partly in another encoding, with U+FFFD for what cannot be read there


def decode_mixed(data: bytes, main: str, text: str, bad_offsets: list[int], name: str) -> Reading:
    """Decode a file line by line in several encodings.

    Args:
        data, name: the file, and its name for messages.
        main, text, bad_offsets: the codec that reads most of it, and its reading in that codec.

    Raises:
        UserError: more than MAX_TORN_SHARE of the bytes are in torn lines.
    """
    codecs = (main, *(codec for codec in ("utf-8", "gb18030", "big5hkscs") if family_of(codec) != family_of(main)))
    lines = data.splitlines(keepends=True)
    found = choose_segments(data, lines, codecs, text)

    # each segment is read in its own encoding; a file of a single one has been read already
    texts, bad, torn, start = [], [], [], 0
    for first, last, codec in found:
        raw = b"".join(lines[first : last + 1])
        part, offsets = (text, bad_offsets) if len(found) == 1 else repair.read_as(raw, codec)
        part, numbers = mark_torn_lines(lines[first : last + 1], part, (codec, *codecs))
        torn += [first + number for number in numbers]
        texts.append(part)
        bad += [start + offset for offset in offsets]
        start += len(raw)
    if sum(len(lines[number - 1]) for number in torn) > MAX_TORN_SHARE * len(data):
        place = sum(map(len, lines[: torn[0] - 1]))
        message = f"{name}: line {torn[0]:,} (from byte {place:,}) changes encoding midway, expected one per line"
        raise UserError(message, f"--encoding {family_of(main)}", EXIT_INPUT)
    segments = [(first + 1, last + 1, family_of(codec)) for first, last, codec in found if len(found) > 1]
    return Reading("".join(texts), bad, tuple(segments), torn)


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


def mark_torn_lines(lines: list[bytes], text: str, codecs: tuple[str, ...]) -> tuple[str, list[int]]:
    """Find the lines of a segment, from 1, that are partly in another encoding than its own, the first of the codecs.

    Returns them with the text, in which U+FFFD stands for each run of their bad bytes.
    """
    readings, torn = split_lines(text), []
    for index in lines_with_rare_runs(text):
        if changes_inside(lines[index], readings[index], codecs[0], codecs[1:]):
            readings[index] = BAD_RUN.sub("\ufffd", readings[index])
            torn.append(index + 1)
    return "".join(readings) if torn else text, torn


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
            text = data.decode(codec, "surrogateescape") if codec == "utf-8" else repair.plain_reading(data, codec)
        scores.append(likelihood.line_sums(nats_of(text), unicode_codes(text)))
    path = likeliest_path(np.stack(scores, axis=1))  # (num_lines,)
    borders = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [(start, end - 1, codecs[path[start]]) for start, end in itertools.pairwise(borders)]


def likeliest_path(scores: np.ndarray) -> np.ndarray:
    """Choose each line's state (num_lines,) by its nats (num_lines, num_states), less the costs of changes.

    >>> likeliest_path(np.array([[-70.0, -140], [-31, -35], [-190, -110], [-25, -22], [-320, -180]])).tolist()
    [0, 0, 1, 1, 1]
    """
    # forward: the best sum that ends in each state, and the state it came from
    best, came_from = scores[0].copy(), np.zeros(scores.shape, np.int64)
    for number, row in enumerate(scores[1:], 1):
        leader = int(best.argmax())
        change = best[leader] - CHANGE_NATS
        came_from[number] = np.where(best >= change, np.arange(len(best)), leader)
        best = np.maximum(best, change) + row
    # backward: from the best last state along what it came from
    path = np.zeros(len(scores), np.int64)
    path[-1] = best.argmax()
    for number in range(len(scores) - 1, 0, -1):
        path[number - 1] = came_from[number, path[number]]
    return path


def is_foreign(raw: bytes, codec: str, main: str) -> bool:
    """Say whether a segment reads as Chinese in a codec and does not in the file's main encoding."""
    reading, main_reading = (raw.decode(name, "ignore") for name in (codec, main))
    if not likelihood.is_plausible(reading):
        return False
    return not likelihood.is_plausible(main_reading) or score(reading) > score(main_reading) + 100


def lines_with_rare_runs(text: str) -> list[int]:
    """Number the lines, from 0, that hold a run of characters none of which is frequent."""
    codes = unicode_codes(text)
    return np.unique(np.searchsorted(likelihood.line_ends(codes), strange_places(nats_of(text)), side="right")).tolist()


def strange_places(nats: np.ndarray) -> np.ndarray:
    """Find where RUN neighbouring characters are all rare and together very rare."""
    rare = sliding_sums(nats < RARE_NATS, RUN) > RUN - 0.5
    return np.flatnonzero(rare & (sliding_sums(nats, RUN) < RUN * RUN_NATS))


def changes_inside(raw: bytes, text: str, codec: str, codecs: tuple[str, ...]) -> bool:
    """Say whether some stretch of a line, read as `text` in a codec, is clearly likelier in several by turns."""
    sizes = repair.char_sizes(unicode_codes(text), codec)  # bytes
    ends = np.append(0, np.cumsum(sizes))  # of each character, after a leading 0
    checked = 0  # characters
    for place in strange_places(nats_of(text)).tolist():
        if place >= checked:
            checked = place + AROUND
            part = raw[ends[max(0, place - AROUND)] : ends[min(place + 2 * AROUND, len(text))]]
            if turns_score(part, codecs) > turns_score(part, (codec,)) + INNER_NATS:
                return True
    return False


def turns_score(data: bytes, codecs: tuple[str, ...]) -> float:
    """Score the likeliest parse of bytes in which encodings may take turns, at CHANGE_NATS a turn.

    >>> line = "却说玄德见了".encode() + "天下大势，分久必合".encode("gb18030")
    >>> turns_score(line, ("utf-8", "gb18030")) > turns_score(line, ("gb18030",)) + 20
    True
    """
    table, single = likelihood.nats_list(), likelihood.byte_nats()
    pairs = [likelihood.pair_nats(codec) if codec != "utf-8" else None for codec in codecs]
    best = [[0.0] * (len(data) + 1) for _ in codecs]  # nats before each byte, by encoding
    bad_at = [-1] * len(codecs)  # where each codec's latest bad byte ended
    for end, byte in enumerate(data, 1):
        for which, (sums, pair) in enumerate(zip(best, pairs, strict=True)):
            lone = nats = sums[end - 1] + single[byte] + repair.AFTER_BAD * (byte >= 0x80 and bad_at[which] == end - 1)
            # a character of two bytes, or one of UTF-8 with three: E0 to EF, then two of 80 to BF
            if pair is not None:
                if byte >= 0x40 and end >= 2:
                    nats = max(nats, sums[end - 2] + pair[data[end - 2] << 8 | byte])
            elif 0x80 <= byte < 0xC0 and end >= 3 and data[end - 3] >> 4 == 14 and data[end - 2] >> 6 == 2:
                code = (data[end - 3] & 15) << 12 | (data[end - 2] & 63) << 6 | byte & 63
                nats = max(nats, sums[end - 3] + table[code])
            if nats == lone and byte >= 0x80:
                bad_at[which] = end
            sums[end] = nats
        # any encoding may take over from the best one
        change = max(sums[end] for sums in best) - CHANGE_NATS
        for sums in best:
            if sums[end] < change:
                sums[end] = change
    return max(sums[-1] for sums in best)
