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

import numpy as np

from novelgpt.corpus.parsing import AFTER_BAD, char_sizes, plain_reading, windows
from novelgpt.corpus.plausibility import BAD_BYTE, code_points, is_plausible, nats_list, nats_of, pair_nats, score
from novelgpt.corpus.reading import MAX_OFFSETS, Decoded, drop_escapes, family, read_as, refuse_bad_bytes, title
from novelgpt.messages import EXIT_INPUT, UserError

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
CHANGE_NATS = 25.0  # cost of a change of encoding from one line to the next
STRANGE_NATS = -10.0  # nats a character beyond ASCII of a line that is looked at again
MIN_CHARS = 4
WINDOW = 4  # characters
WINDOW_NATS = -11.5  # nats a character in a window that reads as nothing
RARE_NATS = -9.0  # nats that no character of such a window reaches
INNER_NATS = 40.0  # nats by which changes of encoding must explain a stretch better, their cost apart
AROUND = 16  # characters on either side of such a window that are parsed with it


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
    reason = "its lines are in " + " and ".join(sorted({title(codec) for _, _, codec in segments}))
    text = drop_escapes("".join(texts)).removeprefix("\ufeff")
    return Decoded(text, "mixed", reason, len(bad), tuple(bad[:MAX_OFFSETS]), segments)


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
    sizes = np.cumsum([0] + [len(line) for line in lines])
    readings = split_lines(text)
    for index in strange_lines(text):
        if changes_inside(lines[index], readings[index], codecs[0], codecs[1:]):
            number, start = place[0] + index + 1, place[1] + sizes[index]
            message = f"{name}: line {number:,} (from byte {start:,}) changes its encoding within, expected one a line"
            raise UserError(message, "break the line where the encoding changes, or give --encoding", EXIT_INPUT)


def line_sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sum one value a character over each line.

    Args:
        values: (num_chars,), any number type.
        codes: uint32 (num_chars,), the code points of the same text.

    Returns:
        float64 (num_lines,); a line ends after LF, CRLF or a CR alone, which counts to it.
    """
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    return np.diff(totals[line_ends(codes)], prepend=0.0)


def line_ends(codes: np.ndarray) -> np.ndarray:
    """Find the places after the last character of each line, int64 (num_lines,)."""
    lone_return = (codes == 13) & (np.append(codes[1:], 0) != 10)
    ends = np.flatnonzero((codes == 10) | lone_return) + 1
    return ends if len(ends) and ends[-1] == len(codes) else np.append(ends, len(codes))


def split_lines(text: str) -> list[str]:
    r"""Split where bytes.splitlines does, ends kept: after LF, CRLF or a CR alone and nowhere else.

    >>> split_lines("a\r\nb\rc\u2028d")
    ['a\r\n', 'b\r', 'c\u2028d']
    """
    return LINE.findall(text)


def has_strange_lines(text: str) -> bool:
    """Say whether some line does not read as Chinese.

    >>> has_strange_lines("却说玄德\\n蠓縫湮狟\\n")
    True
    """
    codes = code_points(text)
    counted = (codes > 0x7F) & (codes != 0x3000)
    sums, counts = line_sums(nats_of(text) * counted, codes), line_sums(counted, codes)
    return bool(((counts >= MIN_CHARS) & (sums < STRANGE_NATS * counts)).any())


def find_segments(data: bytes, codecs: tuple[str, ...], texts: dict[str, str]) -> list[tuple[int, int, str]]:
    """Divide the lines of a file among encodings.

    Args:
        data: the file.
        codecs: the encodings to choose from, the main one first.
        texts: readings of the whole file that are there already, by encoding.

    Returns:
        (first line, last line, codec) of each segment, lines counted from 0.
    """
    scores = []
    for codec in codecs:
        text = texts.get(codec) or (
            data.decode("utf-8", "surrogateescape") if codec == "utf-8" else plain_reading(data, codec)
        )
        scores.append(line_sums(nats_of(text), code_points(text)))
    path = likeliest_path(np.stack(scores, axis=1))
    borders = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [(start, end - 1, codecs[path[start]]) for start, end in itertools.pairwise(borders)]


def likeliest_path(scores: np.ndarray) -> np.ndarray:
    """Choose a state for each line so that the scores minus the costs of changes are largest.

    Args:
        scores: float64 (num_lines, num_states), nats.

    Returns:
        int64 (num_lines,), the states.

    >>> likeliest_path(np.array([[-70.0, -140], [-31, -35], [-190, -110], [-25, -22], [-320, -180]])).tolist()
    [0, 0, 1, 1, 1]
    """
    best, came_from = scores[0].copy(), np.zeros(scores.shape, np.int64)
    for number, row in enumerate(scores[1:], 1):
        leader = int(best.argmax())
        change = best[leader] - CHANGE_NATS
        came_from[number] = np.where(best >= change, np.arange(len(best)), leader)
        best = np.maximum(best, change) + row
    path = np.zeros(len(scores), np.int64)
    path[-1] = best.argmax()
    for number in range(len(scores) - 1, 0, -1):
        path[number - 1] = came_from[number, path[number]]
    return path


def is_foreign(raw: bytes, codec: str, main: str) -> bool:
    """Say whether a segment reads as Chinese in a codec and does not in the file's main encoding."""
    reading, main_reading = (raw.decode(name, "ignore") for name in (codec, main))
    return is_plausible(reading) and (not is_plausible(main_reading) or score(reading) > score(main_reading) + 100)


def strange_lines(text: str) -> list[int]:
    """Number the lines, from 0, that hold a run of characters none of which is frequent."""
    codes = code_points(text)
    return np.unique(np.searchsorted(line_ends(codes), strange_places(nats_of(text)), side="right")).tolist()


def strange_places(nats: np.ndarray) -> np.ndarray:
    """Find where WINDOW neighbouring characters are all rare and together very rare."""
    rare = windows(nats < RARE_NATS, WINDOW) > WINDOW - 0.5
    return np.flatnonzero(rare & (windows(nats, WINDOW) < WINDOW * WINDOW_NATS))


def changes_inside(raw: bytes, text: str, codec: str, codecs: tuple[str, ...]) -> bool:
    """Say whether some stretch of a line reads clearly better when its encoding may change within it.

    Args:
        raw: the bytes of the line.
        text: its reading, a lone surrogate for each bad byte.
        codec: the encoding of that reading.
        codecs: the encodings that may take turns.
    """
    ends = np.append(0, np.cumsum(char_sizes(code_points(text), codec)))  # of each character, after a leading 0
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
    table = nats_list()
    single = [*table[:0x80], *[BAD_BYTE] * 0x80]
    pairs = [pair_nats(codec) if codec != "utf-8" else None for codec in codecs]
    best = [[0.0] * (len(data) + 1) for _ in codecs]
    bad_at = [-1] * len(codecs)  # where each codec's latest bad byte ended
    for end, byte in enumerate(data, 1):
        for which, (sums, pair) in enumerate(zip(best, pairs, strict=True)):
            lone = nats = sums[end - 1] + single[byte] + AFTER_BAD * (byte >= 0x80 and bad_at[which] == end - 1)
            if pair is not None:
                if byte >= 0x40 and end >= 2:
                    nats = max(nats, sums[end - 2] + pair[data[end - 2] << 8 | byte])
            elif 0x80 <= byte < 0xC0 and end >= 3 and data[end - 3] >> 4 == 14 and data[end - 2] >> 6 == 2:
                code = (data[end - 3] & 15) << 12 | (data[end - 2] & 63) << 6 | byte & 63
                nats = max(nats, sums[end - 3] + table[code])
            if nats == lone and byte >= 0x80:
                bad_at[which] = end
            sums[end] = nats
        change = max(sums[end] for sums in best) - CHANGE_NATS
        for sums in best:
            if sums[end] < change:
                sums[end] = change
    return max(sums[-1] for sums in best)
