"""Short lines -> the family of headings that divides a book whose headings are not of the usual kind.

A *family* are the lines that are alike but for their numbers, or that share a sign in front::

    一 青衫磊落     （一）    1.失业    2|【02】    part1 …    正文 1    卷之一 …    二回 …    ☆、替嫁    ★青蛙王子

It is believed where its numbers count up (they may begin again) with a chapter's text between them; so a list, a date
or the scenes inside a chapter do not divide. Of several the one wins whose pieces have the length of chapters.
"""

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from statistics import median

from novelgpt.corpus.headings import (
    CHAPTER_UNITS,
    COUNTED,
    FRONT,
    MAX_HEADING,
    MAX_NUMBER,
    Heading,
    parse_number,
    read_heading,
    read_numbered,
    unnumbered_lines,
)

MIN_CHAPTER = 200  # characters from one heading to the next
MIN_ALONE = 100  # characters from one point of a list to the next, at most
SHORT = 20  # characters of a chapter whose number is missing between two others
MIN_ROW = 3  # headings that count up
MIN_SIGNED = 5  # headings that share a sign
MAX_STEP = 3  # from one number to the next: some headings are not found
SENSIBLE = (800, 50_000)  # characters of a chapter
LONG_PIECE = 60_000  # characters; a longer one may hold chapters whose headings were not found
FAR_LONGER = 20  # than the middle one
MAX_FRONT = 0.1  # of the text, before the first heading
INTO_TEXT = re.compile(rf"^{COUNTED}(?P<unit>[回章节節])\s")  # a heading that runs into the text behind it
NO_SIGN = re.escape("，。！？：；、“”‘’「」『』《》（）()【】〖〗[]…—-～~.,!?:;'\"<>/")
SIGNED = re.compile(rf"^(?P<sign>ˇ|[^\w\s{NO_SIGN}])[\s、]*(?P<title>.*\w.*)$")
PART = re.compile(r"[（(][上中下一二三四五六\d]{1,2}[)）]$|(?<![\w])[上中下]$")  # of a chapter
END_MARK = re.compile(r"^\s*[（(【\[]?(?:[全已]?[完终終]|[完终終]结|[结結]束)(?![\u4e00-\u9fff])")
THE_END = re.compile(r"^\W*(?:[全本正]?[文书書篇]?\s?[完终終]|[完终終][结結]|end|the end)\W*$", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """A short line that may be a heading."""

    heading: Heading
    offset: int  # characters before it
    key: tuple  # what its family shares


@dataclass(frozen=True)
class Family:
    """Headings that are alike, and how well they divide the text."""

    headings: list[Heading]
    lengths: list[int]  # characters from each to the next
    counted: bool  # they are told by their numbers, not by a sign

    @property
    def rank(self) -> tuple:
        """Compare families: chapters of sensible length, numbers that do not begin again, more of them."""
        low, high = SENSIBLE
        again = self.counted and any(one.number >= two.number for one, two in pairwise(self.headings))
        is_sensible = low <= median(self.lengths) <= high and not leaves_too_much(self.lengths)
        return is_sensible, not again, len(self.headings)


def find_candidates(lines: Sequence[str]) -> Iterator[Candidate]:
    """Yield the short lines that may be headings, each once for every family that it may belong to."""
    offset = 0
    for number, line in enumerate(lines, 1):
        if line and len(line) <= 2 * MAX_HEADING:
            if found := read_numbered(line, number):
                yield Candidate(found[0], offset, found[1])
            if len(line) <= MAX_HEADING and (match := SIGNED.match(line)):
                inside = read_numbered(match["title"])  # only a number in front counts chapters
                counted = inside[0].number if inside and inside[1][0] in ("", "第") else None
                heading = Heading(number, line, counted, match["sign"], match["title"])
                yield Candidate(heading, offset, (match["sign"],))
        offset += len(line)


def rising_rows(places: Sequence[tuple[int, int]]) -> list[int]:
    """Choose the places whose numbers count up, the longest row first, then before and behind it the same.

    Args:
        places: (offset, number) of what looks like a heading, by offset.

    Returns:
        The indices of the places chosen.

    >>> rising_rows([(0, 1), (10, 2), (20, 3), (900, 1), (1800, 2), (2000, 1), (2700, 3)])
    [3, 4, 6]
    """
    # of the longest row that ends with each place: its length, the place before this one, the first of all
    length, former, first = [], [], []
    last: dict[int, int] = {}  # number -> the place that rows go on from
    for index, (offset, number) in enumerate(places):
        steps = [last[number - step] for step in range(1, MAX_STEP + 1) if number - step in last]
        steps = [other for other in steps if offset - places[other][0] >= MIN_CHAPTER]
        best = max(steps, key=lambda other: length[other], default=None)
        length.append(1 if best is None else length[best] + 1)
        former.append(best)
        first.append(index if best is None else first[best])
        # a row begins as late as it can, which leaves out a table of contents, and goes on as early as it can
        other = last.get(number, index)
        if (length[index], first[index]) > (length[other], first[other]) or other == index:
            last[number] = index
    if max(length, default=0) < MIN_ROW:
        return []
    end = index = length.index(max(length))
    row = []
    while index is not None:
        row.insert(0, index)
        index = former[index]
    behind = (end + 1 + index for index in rising_rows(places[end + 1 :]))
    return [*rising_rows(places[: first[end]]), *row, *behind]


def make_family(candidates: list[Candidate], total: int) -> Family | None:
    """Take of the lines that are alike those that divide a text of so many characters; None where they do not."""
    if len(candidates[0].key) == 1:
        chosen = candidates if len(candidates) >= MIN_SIGNED else []
    else:
        candidates = standing_alone(candidates)
        chosen = [candidates[index] for index in rising_rows([(one.offset, one.heading.number) for one in candidates])]
    if not chosen:
        return None
    lengths = [two - one for one, two in pairwise([*(candidate.offset for candidate in chosen), total])]
    if chosen[0].offset > max(MAX_FRONT * total, 2 * median(lengths)) or median(lengths) < MIN_CHAPTER:
        return None
    # most of the lines that look so from the first on must count up
    behind = sum(candidate.offset >= chosen[0].offset for candidate in candidates)
    if 2 * len(chosen) < behind or sum(length < MIN_CHAPTER for length in lengths) > 0.2 * len(lengths):
        return None
    return Family([candidate.heading for candidate in chosen], lengths, len(candidates[0].key) > 1)


def standing_alone(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leave out the candidates that stand close to another, as the points of a list do."""
    offsets = [-MIN_ALONE, *(candidate.offset for candidate in candidates), float("inf")]
    near = zip(offsets, offsets[1:], offsets[2:], strict=False)
    far = [min(here - before, after - here) >= MIN_ALONE for before, here, after in near]
    return [candidate for candidate, is_far in zip(candidates, far, strict=True) if is_far]


def choose_family(lines: Sequence[str]) -> list[Heading]:
    """Find the family that divides a text best; none where nothing does.

    >>> page = ["他走了。" * 100]
    >>> [heading.text for heading in choose_family([*["一 山"], *page, "二 水", *page, "三 人", *page])]
    ['一 山', '二 水', '三 人']
    """
    total = sum(map(len, lines))
    groups: dict[tuple, list[Candidate]] = defaultdict(list)
    for candidate in find_candidates(lines):
        groups[candidate.key].append(candidate)
    families = [family for group in groups.values() if len(group) >= MIN_ROW and (family := make_family(group, total))]
    if not families:
        return []
    return max(families, key=lambda family: family.rank).headings


def add_unnumbered(lines: Sequence[str], headings: Sequence[Heading], *, first: int) -> list[Heading]:
    """Add the headings that have no number: 楔子, 后记 and the like, before the line of the first chapter also 序."""
    front = [number for number, line in enumerate(lines[: max(0, first - 1)], 1) if line and FRONT.match(line)]
    short = [number for number in [*front, *unnumbered_lines(lines)] if len(lines[number - 1]) <= MAX_HEADING]
    chosen = {number: Heading(number, lines[number - 1], None, "", lines[number - 1]) for number in short}
    chosen |= {heading.line: heading for heading in headings}
    return [chosen[number] for number in sorted(chosen)]


def leaves_too_much(lengths: Sequence[int]) -> bool:
    """Tell whether pieces of these lengths, in characters, hint at headings that were not found."""
    longest = max(lengths, default=0)
    return longest > LONG_PIECE or longest > max(SENSIBLE[1] // 2, FAR_LONGER * median(lengths or [0]))


def piece_lengths(lines: Sequence[str], headings: Sequence[Heading]) -> list[int]:
    """Count the characters from each heading to the next, and before the first."""
    ends = [0, *accumulate(map(len, lines))]
    borders = [0, *(ends[heading.line - 1] for heading in headings), ends[-1]]
    return [two - one for one, two in pairwise(borders)]


def mean_piece(lengths: Sequence[int]) -> float:
    """Return how long the piece is in which a character stands, on average.

    >>> mean_piece([10, 30])
    25.0
    """
    return sum(length * length for length in lengths) / max(1, sum(lengths))


def drop_end_marks(headings: Sequence[Heading]) -> list[Heading]:
    """Leave out the lines that end a chapter: the number of the one before them, and a word for its end.

    >>> lines = ((1, 7, ""), (9, 7, "完"), (10, 8, "终"), (20, 9, ""))
    >>> [heading.line for heading in drop_end_marks([Heading(line, "", n, "回", title) for line, n, title in lines])]
    [1, 10, 20]
    """
    marks = [heading for heading in headings if heading.unit and END_MARK.match(heading.title)]
    if 2 * len(marks) > len(headings):
        return [heading for heading in headings if heading not in marks]
    kept: list[Heading] = []
    for heading in headings:
        former = next((other.number for other in reversed(kept) if other.number is not None), None)
        is_mark = END_MARK.match(heading.title) and heading.unit and heading.number == former
        if not is_mark and not (heading.number is None and THE_END.match(heading.title)):
            kept.append(heading)
    return kept


def fill_gaps(lines: Sequence[str], headings: Sequence[Heading]) -> list[Heading]:
    """Add the lines that carry the numbers missing between headings, behind the last and before the first.

    What would not be believed alone is: a prefix in front, a title that ends as sentences do, words such as
    `第一回合`. Where a prefix fills three gaps, all headings with it are believed; so are the later parts of a chapter.
    """
    numbered = [heading for heading in headings if heading.number is not None]
    gaps = list(missing_between(numbered, len(lines))) if numbered else []
    if not gaps:
        return list(headings)
    kinds, known = {kind_of_unit(heading) for heading in numbered}, {heading.line for heading in headings}
    filled = Filled(sorted(known), [0, *accumulate(map(len, lines))])
    keys = {found[1] for heading in numbered if (found := read_numbered(lines[heading.line - 1]))}
    for first, last, numbers, least in gaps:
        # in the order of the numbers; the next one is not far
        between = [pair for pair in weak_headings(lines, first, last - 1, kinds) if pair[0].line not in known]
        former = numbers[0] - 1
        for heading, key in between:
            if former < heading.number <= min(former + MAX_STEP, numbers[-1]) and filled.add(heading, key, least):
                former = heading.number
        # a single wrong number, where the line is like the headings around it
        if former < numbers[0] == numbers[-1]:
            any(filled.add(heading, key, MIN_CHAPTER) for heading, key in between if key in keys)
    if max(filled.keys.values(), default=0) >= MIN_ROW or not all(map(is_usual, numbered)):
        add_likenesses(filled, numbered, keys, weak_headings(lines, 0, len(lines), kinds))
    return sorted([*headings, *filled.headings], key=lambda heading: heading.line)


def is_usual(heading: Heading) -> bool:
    """Tell whether a heading is one by itself."""
    return read_heading(heading.text) is not None


def add_likenesses(
    filled: "Filled", numbered: Sequence[Heading], keys: Collection[tuple], weak: Iterator[tuple[Heading, tuple]]
) -> None:
    """Add the headings with a prefix that has proved itself, and the parts of a chapter behind its first."""
    numbers = {heading.line: heading.number for heading in [*numbered, *filled.headings]}
    order, known = sorted(numbers), set(filled.lines)
    for heading, key in weak:
        place = bisect_right(order, heading.line)
        former = numbers[order[place - 1]] if place else None
        is_part = key in keys and heading.number == former and PART.search(heading.title)
        if heading.line not in known and (filled.keys[key] >= MIN_ROW or is_part):
            filled.add(heading, key, MIN_CHAPTER)


@dataclass
class Filled:
    """Headings found in gaps."""

    lines: list[int]  # of all headings, in order
    ends: list[int]  # characters before each line, and in all
    headings: list[Heading] = field(default_factory=list)
    keys: Counter = field(default_factory=Counter)

    def add(self, heading: Heading, key: tuple, least: int) -> bool:
        """Add a heading if at least so many characters stand between it and the headings before and behind it."""
        place = bisect_right(self.lines, heading.line)
        before = self.lines[place - 1] if place else None
        after = self.lines[place] if place < len(self.lines) else len(self.ends)
        above = least if before is None else self.ends[heading.line - 1] - self.ends[before]
        if before == heading.line or min(above, self.ends[after - 1] - self.ends[heading.line]) < least:
            return False
        self.lines.insert(place, heading.line)
        self.headings.append(heading)
        self.keys[key] += 1
        return True


def weak_headings(
    lines: Sequence[str], start: int, end: int, kinds: Collection[str]
) -> Iterator[tuple[Heading, tuple]]:
    """Yield the lines, by index, that are headings of these kinds where their number is missing, with their keys."""
    for number in range(start + 1, end + 1):
        line = lines[number - 1]
        if not line:
            continue
        if len(line) <= 2 * MAX_HEADING:
            found = read_numbered(line, number)
            if found and (kind_of_unit(found[0]) in kinds or found[0].unit == "第"):
                yield found
        elif (match := INTO_TEXT.match(line)) and len(match["number"]) <= MAX_NUMBER and match["unit"] in kinds:
            text = " ".join(line.split(maxsplit=2)[:2])[:MAX_HEADING]
            yield Heading(number, text, parse_number(match["number"]), match["unit"], ""), ("第", match["unit"], "")


def kind_of_unit(heading: Heading) -> str:
    """Tell headings that say 第 or a unit from others."""
    return heading.unit if heading.unit in CHAPTER_UNITS else ""


def missing_between(headings: Sequence[Heading], num_lines: int) -> Iterator[tuple[int, int, range, int]]:
    """Yield (line, line, numbers, least characters of text) for every place where numbers are missing between lines."""
    first = headings[0]
    if 1 < first.number <= MAX_NUMBER:
        yield 0, first.line, range(1, first.number), MIN_CHAPTER
    for one, two in pairwise(headings):
        if two.number > one.number + 1:
            # a single missing chapter may be an empty one
            yield one.line, two.line, range(one.number + 1, two.number), 0 if two.number == one.number + 2 else SHORT
        elif two.number < one.number:
            yield one.line, two.line, range(one.number + 1, one.number + 1 + MAX_STEP), MIN_CHAPTER
    yield headings[-1].line, num_lines + 1, range(headings[-1].number + 1, headings[-1].number + 1_000), MIN_CHAPTER
