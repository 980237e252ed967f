"""The headings of a book -> those that begin a chapter, without the ones that list it or stand twice.

A table of contents also tells which lines are headings where nothing else does: those that stand in it.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import median

from novelgpt.corpus.headings import MAX_HEADING, VOLUME_LINE, Heading, read_heading

MAX_LISTED = 15  # characters of text below a heading that is only listed in a table of contents
MAX_BETWEEN = 400  # characters, of menus and the like, between the two of a doubled heading
MIN_ENTRIES = 4  # of a table of contents without numbers
MIN_SHARE = 0.7  # of its entries that must stand again
MIN_CHAPTER = 200  # characters between two of them, in the middle
SENTENCE_SIGN = re.compile("[。！？；“”「」]")
CONTENTS_WORD = re.compile(r"^[【\[]?\s*目\s*[录錄]\s*[】\]]?$")
PUNCTUATION = re.compile(r"[\W_]+")
CONTENTS, DOUBLED = "table of contents", "heading doubled"


def listed_headings(lines: Sequence[str]) -> list[Heading]:
    """Find the lines that tables of contents name, and the lines of these tables, which drop_contents will remove.

    >>> titles, page = ["山村", "旅途", "归来", "尾声"], "他走了。" * 99
    >>> text = ["目录", *titles, *(line for title in titles for line in (title, page))]
    >>> [heading.line for heading in listed_headings(text)]
    [2, 3, 4, 5, 6, 8, 10, 12]
    """
    places: dict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(lines):
        if line and len(line) <= MAX_HEADING and not SENTENCE_SIGN.search(line) and (key := entry_key(line)):
            places[key].append(index)
    ends = [0, *accumulate(map(len, lines))]
    found: set[int] = set()
    for run in contents_runs(lines, places):
        chosen = named_lines(run, [entry_key(lines[index]) for index in run], places)
        distances = [ends[two] - ends[one] for one, two in pairwise(chosen)]
        if len(chosen) >= max(MIN_ENTRIES, MIN_SHARE * len(run)) and median(distances) >= MIN_CHAPTER:
            found.update(run, chosen)
    return [plain_heading(lines[index], index + 1) for index in sorted(found)]


def named_lines(run: Sequence[int], keys: Sequence[str], places: Mapping[str, Sequence[int]]) -> list[int]:
    """Return the next line behind a table of contents for each of its entries, in their order."""
    chosen, after = [], run[-1]
    for key in keys:
        again = next((place for place in places[key] if place > after), None)
        if again is not None:
            chosen.append(again)
            after = again
    return chosen


def contents_runs(lines: Sequence[str], places: Mapping[str, Sequence[int]]) -> Iterator[list[int]]:
    """Yield the rows of lines that stand again further down; one other line may stand between two of them."""
    run, between = [], 0
    for index, line in enumerate(lines):
        if not line:
            continue
        key = entry_key(line) if len(line) <= MAX_HEADING else ""
        if key in places and places[key][-1] > index and (not run or entry_key(lines[run[0]]) != key):
            run.append(index)
            between = 0
            continue
        between += 1
        if between > 1 or len(line) > MAX_HEADING:
            if len(run) >= MIN_ENTRIES:
                yield run
            run = []
    if len(run) >= MIN_ENTRIES:
        yield run


def entry_key(line: str) -> str:
    """Reduce an entry of a table of contents, or a heading, to its letters, without the number of its page.

    >>> entry_key("阅 读……… 12"), entry_key("阅读")
    ('阅读', '阅读')
    """
    return PUNCTUATION.sub("", re.sub(r"[\s.…·—-]+\d+$", "", line))


def plain_heading(line: str, number: int) -> Heading:
    """Make a heading of a line whatever it looks like."""
    return read_heading(line, number) or Heading(number, line, None, "", line)


def text_below(lines: list[str], headings: list[Heading]) -> list[int]:
    """Count the characters between each heading and the next, volume lines and the word 目录 left out."""
    ends = [heading.line - 1 for heading in headings[1:]] + [len(lines)]
    return [count_text(lines, heading.line, end) for heading, end in zip(headings, ends, strict=True)]


def count_text(lines: Sequence[str], start: int, end: int) -> int:
    """Count the characters of these lines, volume lines and the word 目录 left out, until it is enough."""
    total = 0
    for line in lines[start:end]:
        if line and not VOLUME_LINE.match(line) and not CONTENTS_WORD.match(line):
            total += len(line)
        if total > MAX_BETWEEN:
            break
    return total


def drop_contents(lines: list[str], headings: list[Heading], removed: list[tuple[int, str, str]]) -> list[Heading]:
    """Remove tables of contents, with the word 目录 and the volume lines that stand among them or just above."""
    listed = find_contents(headings, text_below(lines, headings))
    if not listed:
        return headings
    removed += [(headings[index].line, headings[index].text, CONTENTS) for index in listed]
    # the word 目录 may stand a few lines above the list, a volume line just above
    first, last = headings[listed[0]].line, headings[listed[-1]].line
    for number in range(max(1, first - 5), last + 1):
        line = lines[number - 1]
        if CONTENTS_WORD.match(line) or (number > first - 3 and line and VOLUME_LINE.match(line)):
            removed.append((number, line, CONTENTS))
    removed.sort()
    chosen = set(listed)
    return [heading for index, heading in enumerate(headings) if index not in chosen]


def find_contents(headings: list[Heading], lengths: list[int]) -> list[int]:
    """List the headings, by index, of runs of three or more without text whose chapters stand elsewhere."""
    keys = [heading_key(heading) for heading in headings]
    with_text = {key for key, length in zip(keys, lengths, strict=True) if length > MAX_LISTED}
    listed: list[int] = []
    start = 0
    while start < len(headings):
        end = start
        while end < len(headings) and lengths[end] <= MAX_LISTED:
            end += 1
        # The last entry of a contents list has text below it only because it is the last: it counts when its
        # chapter comes once more.
        if start < end < len(headings) and keys[end] in keys[end + 1 :]:
            end += not same_heading(headings[end], headings[end - 1])
        run = range(start, end)
        known = sum(keys[index] in with_text for index in run)
        if len(run) >= 3 and known >= 0.8 * len(run):
            listed.extend(run)
        start = max(end, start + 1)
    return listed


def heading_key(heading: Heading) -> tuple:
    """Name the chapter of a heading: by its number, or by its title where it has none."""
    if heading.number is None:
        return None, "", PUNCTUATION.sub("", heading.title)
    return heading.number, heading.unit, ""


def same_heading(one: Heading, other: Heading) -> bool:
    """Tell whether two headings name the same chapter: one number, and titles that agree as far as both have one."""
    if (one.number, one.unit) != (other.number, other.unit):
        return False
    first, second = (PUNCTUATION.sub("", heading.title) for heading in (one, other))
    return first.startswith(second) or second.startswith(first)


def drop_doubled(lines: list[str], headings: list[Heading], removed: list[tuple[int, str, str]]) -> list[Heading]:
    """Of neighbouring headings that name the same chapter, with little between them, keep the fuller one."""
    kept: list[Heading] = []
    lengths = dict(zip((heading.line for heading in headings), text_below(lines, headings), strict=True))
    for heading in headings:
        if kept and same_heading(kept[-1], heading) and lengths[kept[-1].line] <= MAX_BETWEEN:
            former = kept.pop()
            fuller = len(former.text) < len(heading.text) and not lengths[former.line]
            heading, lesser = (heading, former) if fuller else (former, heading)
            removed.append((lesser.line, lesser.text, DOUBLED))
        kept.append(heading)
    return kept
