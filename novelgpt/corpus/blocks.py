"""A text too large for memory -> blocks that can be prepared one by one, and their facts added up.

A block ends before the last chapter heading in its second half, else after the last line end, else after the last
sentence, else where it is full. A paragraph cut at the end of a sentence goes on as a document of its own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from novelgpt.corpus.chapters import Chapters, check_numbers
from novelgpt.corpus.headings import COUNTED, Chapter

BLOCK = 4 << 20  # characters
HEADING_START = re.compile(rf"[\n\r]\s*(?=[^\s第]{{0,12}}\s*{COUNTED}[回章节節集话話][^\n\r]{{0,40}}[\n\r])")
SENTENCE_END = re.compile(r"[。！？!?…][”’」』）)]*")
SUMS = ("characters_in", "characters", "documents", "chapters")
NUM_EXAMPLES = 3


def cut_blocks(pieces: Iterable[str], *, size: int = BLOCK) -> Iterator[str]:
    """Join the pieces of a stream into blocks of at most about `size` characters that end where a text may end.

    >>> list(cut_blocks(["他走了\\n她", "来了。\\n我不走。"], size=6))
    ['他走了\\n', '她来了。\\n', '我不走。']
    """
    waiting: list[str] = []
    length = 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length < 2 * size:
            continue
        text = "".join(waiting)
        while len(text) >= 2 * size:
            cut = find_cut(text[:size])
            yield text[:cut]
            text = text[cut:]
        waiting, length = [text], len(text)
    text = "".join(waiting)
    while len(text) > size:
        cut = find_cut(text[:size])
        yield text[:cut]
        text = text[cut:]
    if text:
        yield text


def find_cut(text: str) -> int:
    """Choose where a full block ends.

    >>> find_cut("他走了。她来了"), find_cut("他走了\\n她来了")
    (4, 4)
    """
    half = len(text) // 2
    for pattern in (HEADING_START, re.compile(r"\n|\r(?!\Z)"), SENTENCE_END):
        ends = [match.end() for match in pattern.finditer(text, half)]
        if ends:
            return ends[-1]
    return len(text)


def add_facts(total: dict, part: dict, lines_before: int) -> None:
    """Add the facts of one block to those of the blocks before it.

    Args:
        total: facts so far, changed in place; empty at first.
        part: facts of the next block, whose line numbers begin at 1.
        lines_before: lines of all blocks before it.
    """
    for entries in (part["notices"], part["headings_removed"], part["lengths"], *part["examples"].values()):
        for entry in entries:
            entry["line"] += lines_before
    if not total:
        total.update(part)
        return
    for key in SUMS:
        total[key] += part[key]
    for key in ("cleaned", "code_points"):
        total[key] = dict((Counter(total[key]) + Counter(part[key])).most_common())
    for key in ("notices", "headings_removed", "lengths"):
        total[key] += part[key]
    for name, shown in part["examples"].items():
        places = total["examples"].setdefault(name, [])
        places += shown[: NUM_EXAMPLES - len(places)]


def check_blocks(total: dict, num_blocks: int) -> None:
    """Check the chapter numbers of a whole streamed book, and say that it was read in blocks."""
    result = Chapters()
    headings = [entry["heading"] for entry in total["lengths"] if entry["heading"]]
    found = f"{len(headings):,} headings such as {headings[0]!r}" if headings else "no chapter headings"
    check_numbers([Chapter(0, entry["heading"], entry["number"], "", "") for entry in total["lengths"]], result)
    total.update(
        missing=result.missing,
        repeated=result.repeated,
        out_of_order=result.out_of_order,
        volumes=result.volumes,
        how=f"{found}; read in {num_blocks:,} blocks, {total['documents']:,} documents",
    )
