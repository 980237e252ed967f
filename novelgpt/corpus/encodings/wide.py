"""UTF-16 and UTF-32 -> text, brought back into step where a byte is lost or one too many.

Such a byte shifts every unit after it, and all of them read as nothing. The bytes are then read from every offset
within a unit, and the likeliest sequence of offsets is found with a cost for each change::

    bytes       8F 70 | 0E 54 | 54 0D 4E | 86 4E | 65 67     one byte too many in UTF-16-LE
    offset 0      炏      后      呔   ䷺      ...
    offset 1                        一      ...
"""

from itertools import pairwise

import numpy as np

from novelgpt.corpus.encodings import likelihood
from novelgpt.corpus.encodings.likelihood import ASTRAL, nats_table, sliding_sums, unicode_codes

WIDE = {"utf-16-le": "<u2", "utf-16-be": ">u2", "utf-32-le": "<u4", "utf-32-be": ">u4"}
JUDGED = 8  # neighbouring units that are judged together
NONSENSE = -11.5  # nats per character; units out of step lie below
TAIL = 1 << 12  # bytes by which the step at the end of a block is judged
GROUP = 8  # units; so closely the offset is followed before its changes are placed exactly


def read_wide(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode UTF-16 or UTF-32: the text, a lone surrogate for each bad unit or byte, and the offsets of bad bytes.

    Bad are half a character at the end, lone surrogates, and what stands between two stretches out of step.

    >>> data = "他们来到了山脚下的小镇，天色已经晚了。".encode("utf-16-le")
    >>> text, offsets = read_wide(data[:20] + data[21:], "utf-16-le")
    >>> text.replace("\\udc80", ""), offsets
    ('他们来到了山脚下的小，天色已经晚了。', [20])
    """
    if is_in_step(data, codec):
        return read_units(data, codec)
    texts, offsets, end = [], [], 0
    for start, stop in stretches(data, codec):
        part, bad = read_units(data[start:stop], codec)
        texts += ["\udc80" * (start - end), part]
        offsets += [*range(end, start), *(start + place for place in bad)]
        end = stop
    return "".join(texts) + "\udc80" * (len(data) - end), offsets + list(range(end, len(data)))


def is_in_step(data: bytes, codec: str) -> bool:
    """Say whether no JUDGED neighbours read as nothing from the first byte on, and far better from another one."""
    own = sliding_sums(unit_nats(data, codec, 0), JUDGED)
    places = np.flatnonzero(own < NONSENSE * JUDGED)
    others = range(1, np.dtype(WIDE[codec]).itemsize) if len(places) else ()
    better = own[places] + likelihood.CHANGE_NATS
    return not any((sliding_sums(unit_nats(data, codec, offset), JUDGED)[places] > better).any() for offset in others)


def read_units(data: bytes, codec: str) -> tuple[str, list[int]]:
    """Decode whole units from the first byte on, as read_wide does without a change of step."""
    kind = np.dtype(WIDE[codec])
    whole = len(data) // kind.itemsize * kind.itemsize  # bytes, without an unfinished unit at the end
    if kind.itemsize == 4:
        units = np.frombuffer(data[:whole], kind)
        units = np.where(units > 0x10FFFF, 0xDC80, units).astype("<u4")
        text = units.tobytes().decode("utf-32-le", "surrogatepass")
    else:
        text = data[:whole].decode(codec, "surrogatepass")
    codes = unicode_codes(text)
    bad = np.flatnonzero(codes >> 11 == 0xD800 >> 11)
    # a character beyond the basic plane takes two units of UTF-16
    sizes = np.where((codes >= 0x10000) & (kind.itemsize == 2), 4, kind.itemsize)  # bytes
    starts = (np.cumsum(sizes) - sizes)[bad]
    offsets = [int(start) + byte for start in starts for byte in range(kind.itemsize)]
    return text + "\udc80" * (len(data) - whole), offsets + list(range(whole, len(data)))


def read_whole_units(data: bytes, codec: str) -> str:
    """Decode the whole units of a stretch that may end inside one."""
    return read_units(data[: len(data) // 4 * 4], codec)[0]


def stretches(data: bytes, codec: str) -> list[tuple[int, int]]:
    """Divide bytes into stretches, (start, stop), each of whole units in step; single bytes are left out between."""
    size = np.dtype(WIDE[codec]).itemsize
    nats = np.stack([unit_nats(data, codec, offset) for offset in range(size)], axis=1)  # (num_units, size)
    groups = np.add.reduceat(nats, np.arange(0, len(nats), GROUP), axis=0)  # (num_groups, size)
    path = likelihood.likeliest_path(groups)
    changes = np.flatnonzero(np.diff(path)) + 1  # groups
    # a change lies where the sum of the nats before it and after it is the largest
    starts = [int(path[0])]  # bytes
    for group in changes.tolist():
        first, last = max(starts[-1] // size + 1, (group - 2) * GROUP), (group + 2) * GROUP
        before, after = nats[first:last, path[group - 1]], nats[first:last, path[group]]
        sums = np.append(0.0, np.cumsum(before)) + np.append(np.cumsum(after[::-1])[::-1], 0.0)
        starts.append((first + int(sums.argmax())) * size + int(path[group]))
    return [(start, start + (stop - start) // size * size) for start, stop in pairwise([*starts, len(data)])]


def unit_nats(data: bytes, codec: str, offset: int) -> np.ndarray:
    """Return the log-probability of each unit of bytes from an offset on, in nats, 0 beyond the end: (num_units,)."""
    kind = np.dtype(WIDE[codec])
    units = np.frombuffer(data[offset : offset + (len(data) - offset) // kind.itemsize * kind.itemsize], kind)
    nats = np.zeros(len(data) // kind.itemsize)
    nats[: len(units)] = nats_table()[np.minimum(units.astype(np.uint32), ASTRAL)]
    return nats


def whole_bytes(data: bytes, codec: str) -> int:
    """Count the bytes of a block up to its last whole character, in the step in which the block ends."""
    size = np.dtype(WIDE[codec]).itemsize
    start = max(0, len(data) // size * size - TAIL)
    tails = [data[start + offset :] for offset in range(size)]
    texts = [read_units(tail[: len(tail) // size * size], codec)[0] for tail in tails]
    step = max(range(size), key=lambda offset: likelihood.score(texts[offset]))
    end = len(data) - len(tails[step]) % size
    return end - size * ("\ud800" <= texts[step][-1:] < "\udc00")  # the first half of a character of two units
