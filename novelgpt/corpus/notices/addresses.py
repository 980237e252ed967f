"""Web addresses, plain or disguised, and what stands around them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from novelgpt.corpus.folding import fold
from novelgpt.corpus.headings import read_heading
from novelgpt.corpus.notices.lines import (
    CLAUSE,
    CLOSE,
    HEADED,
    LEFT,
    MAX_NOTICE,
    MAX_STUCK,
    MIN_STORY,
    OPEN,
    QUOTE_ENDS,
    SITE_WORD,
    STORY_WORD,
    BookLines,
    Notice,
    in_quotes,
    num_han,
    split_pieces,
)

LETTER = re.compile("[A-Za-zＡ-Ｚａ-ｚ\u0370-\u052fⒶ-ⓩ\U0001d400-\U0001d6a3]")
NOISE = r"(?:[^\w\n“”]|丶){0,4}"  # what is scattered between the letters of www
# the rest of a domain: letters and digits, with up to three other characters before each
INSIDE = r"(?:(?:[^\w，！？“”…《》\n]|丶){0,3}[a-z0-9])*"
PATH = r"(?:[./][a-z0-9./?=&%-]*)?"
TOP = r"(?:c\s?o\s?m|n\s?e\s?t{1,2}|o\s?r\s?g|c\s?n|c\s?c|info|xyz)(?![a-z])"
# endings that are words or names as well: believed behind a longer name only
COUNTRY = r"(?:me|la|tw|hk|co|tv|vip|top|mobi|biz|org|cc)(?![a-z])"
ADDRESS = re.compile(
    "|".join(
        (
            rf"(?:h{NOISE}t{NOISE}t{NOISE}p{NOISE}s?{NOISE})?(?<![a-z])w{NOISE}w{NOISE}w{NOISE}[a-vx-z0-9]{INSIDE}",
            rf"https?\s?[:：]\s?/{{1,2}}[a-z0-9]{INSIDE}",
            rf"(?<![a-z0-9])(?:[a-z0-9-]{{2,30}}[.。·•・点丶]|(?:[a-z0-9-]\s){{2,30}}[.。·•・点丶]\s?){TOP}{PATH}",
            rf"(?<![a-z0-9.])(?:m|wap|3g|txt|book|read)\.[a-z0-9-]{{2,30}}(?:\.[a-z]{{2,10}})+{PATH}",
            rf"(?<![a-z0-9.])[a-z0-9-]{{3,30}}\.{COUNTRY}{PATH}",
        )
    )
)
# An address that is not disguised: all small, all capital, or all full-width.
PLAIN_ADDRESS = re.compile(r"[a-z0-9.:/?=&%#_-]+|[A-Z0-9.:/?=&%#_-]+|[ａ-ｚ０-９．：／]+")
# what people in a story do with an address
TOLD = re.compile('(?:登[陆录]|打开|输入|访问|进入|浏览|网址是|地址是|点开|上|“|"|「)了?$')
EMPTY_BRACKETS = re.compile(rf"[{re.escape(OPEN)}][\W_]*[{re.escape(CLOSE)}]")
HOLE = "\0"  # where an address was; no clean text has one
SENTENCES = re.compile("[。！？…”’」』，：；!?]")
LITTLE = 4  # Chinese characters


def heading_without(line: str, spans: list[tuple[int, int]]) -> str:
    """Return a heading without its addresses, and without what a site says behind them.

    >>> heading_without("第一章 山【http://www.abc.com】小说网最新章节", [(6, 24)])
    '第一章 山'
    """
    title, behind = line[: spans[0][0]].rstrip(f"{LEFT} "), line[spans[-1][1] :]
    return title if is_site_text(behind) else close_gaps(cut_spans(line, spans))


def find_addresses(book: BookLines) -> Iterator[Notice]:
    """Find web addresses and decide whether the line, the sentence around or only the address goes."""
    # folding is slow: only lines with a letter are looked at
    found: dict[int, list[tuple[int, int]]] = {}
    for index in book.with_pattern(LETTER):
        spans = [match.span() for match in ADDRESS.finditer(fold(book.lines[index]))]
        if spans:
            found[index] = spans
    sites = Counter(site_key(book.lines[index][start:end]) for index, spans in found.items() for start, end in spans)
    for index, spans in found.items():
        line = book.lines[index]
        if index in book.headings or read_heading(line[: spans[0][0]].rstrip(f"{LEFT} ")):
            yield book.notice(index, "address in a heading", heading_without(line, spans))
            continue
        plain = cut_spans(line, spans)
        about_site = not is_quoted(plain) and is_site_text(plain)
        kept = cut_addresses(line, [span for span in spans if about_site or not is_told(line, span)], sites, about_site)
        if (num_han(plain) <= 2 and not plain.endswith(QUOTE_ENDS)) or (about_site and not may_be_story(plain)):
            kept = ""
        if kept == line:
            continue
        kept = close_gaps(kept)
        empty = num_han(kept) <= 2 and not kept.endswith(QUOTE_ENDS)
        little = num_han(kept) <= LITTLE and is_site_text(kept)
        if empty or (about_site and (little or not may_be_story(kept))):
            yield book.notice(index, "address")
        else:
            yield book.notice(index, "address in a story line", kept)


def may_be_story(text: str) -> bool:
    """Tell whether what is left of a line about a site is written in sentences, or is a heading."""
    return bool(SENTENCES.search(text) or HEADED.search(text))


def is_quoted(line: str) -> bool:
    """Tell whether somebody speaks in a line."""
    return any(mark in line for mark in "“”「」")


def is_told(line: str, span: tuple[int, int]) -> bool:
    """Tell whether a plain address belongs to the story: somebody opens it or it stands in quotes, and more follows.

    >>> is_told("他打开www.abc.com看了看", (3, 14)), is_told("天黑了。www.abc.com", (4, 15))
    (True, False)
    """
    start, end = span
    before, after = line[:start], line[end:]
    return bool(PLAIN_ADDRESS.fullmatch(line[start:end]) and TOLD.search(before) and after.strip("。.，, "))


def site_key(address: str) -> str:
    """Reduce an address to its letters, without www and what follows the top-level domain.

    >>> site_key("ＷＷw.xiＡosＨuo.ｎｅt/t/xt"), site_key("http://m.xiaoshuo.net")
    ('xiaoshuo', 'xiaoshuo')
    """
    letters = re.sub(r"[^a-z0-9.。]", "", re.sub(r"^https?", "", fold(address)))
    parts = [part for part in re.split(r"[.。]", letters) if part and part not in ("www", "m", "wap")]
    return parts[0] if parts else letters


def is_site_text(text: str) -> bool:
    """Tell whether what stands around an address speaks of the site and not of the story."""
    skeleton = re.sub(r"[^\w]|_", "", fold(text))
    words = set(SITE_WORD.findall(skeleton))
    if len(skeleton) > 2 * MAX_NOTICE:
        return False
    # the longer the text, the more of its words must be about a site; and two more if it tells of people
    needed = 1 if num_han(skeleton) <= 15 else 2 if len(skeleton) <= 40 else 3
    return len(words) >= needed + (2 if STORY_WORD.search(text) else 0)


def cut_spans(line: str, spans: Sequence[tuple[int, int]], hole: str = "") -> str:
    """Put something in the place of these parts of a line."""
    for start, end in reversed(spans):
        line = line[:start] + hole + line[end:]
    return line


def close_gaps(line: str) -> str:
    """Close the gaps that a cut has left, with brackets that held nothing else."""
    # brackets inside brackets empty from within
    while EMPTY_BRACKETS.search(line):
        line = EMPTY_BRACKETS.sub("", line)
    return re.sub(r"\s{2,}", " ", line).strip()


def cut_addresses(line: str, spans: Sequence[tuple[int, int]], sites: Counter[str], about_site: bool) -> str:
    """Take addresses out of a line, and the sentences around them that speak of a site.

    A plain address that is rare goes only with such a sentence, or from a line that speaks of a site.
    """
    holed = cut_spans(line, spans, HOLE)
    addresses = iter([line[start:end] for start, end in spans])
    pieces = [holed[start:end] for start, end in split_pieces(holed)]
    kept = []
    for piece in pieces:
        inside = [next(addresses) for _ in range(piece.count(HOLE))]
        if not inside:
            kept.append(piece)
            continue
        known = about_site or any(sites[site_key(part)] >= 3 or not PLAIN_ADDRESS.fullmatch(part) for part in inside)
        if is_site_text(piece.replace(HOLE, "")) or (known and num_han(piece) <= 2):
            kept.append(HOLE + keep_story(piece))
        elif known:
            kept.append(piece)
        else:
            kept.append(cut_spans_back(piece, inside))
    return drop_neighbours(kept).replace(HOLE, "")


def cut_spans_back(piece: str, addresses: Sequence[str]) -> str:
    """Put addresses back into their holes."""
    for address in addresses:
        piece = piece.replace(HOLE, address, 1)
    return piece


def keep_story(piece: str) -> str:
    """Keep of a sentence about a site the clauses in front, and more behind, that tell a story.

    >>> keep_story("天上下着一场很大很大的雪，首发网址")
    '天上下着一场很大很大的雪，'
    """
    if piece[0] in LEFT:
        return ""
    clauses = [match.group() for match in CLAUSE.finditer(piece) if match.group()]
    places = [place for place, clause in enumerate(clauses) if HOLE in clause or SITE_WORD.search(fold(clause))]
    if not places:
        return ""
    before, after = "".join(clauses[: places[0]]), "".join(clauses[places[-1] + 1 :])
    told = num_han(before) >= MIN_STORY or HEADED.match(before)
    return (before if told else "") + (after if num_han(after) >= 2 * MIN_STORY else "")


def drop_neighbours(pieces: Sequence[str]) -> str:
    """Join the pieces of a line; beside an address a piece goes that speaks of a site in two words or more."""
    line, kept = "".join(pieces), list(pieces)
    place = 0
    for number, piece in enumerate(pieces):
        beside = HOLE in "".join(pieces[max(0, number - 1) : number + 2])
        words = len(set(SITE_WORD.findall(fold(piece)))) + (piece[:1] in LEFT)
        words += 2 * bool(re.fullmatch(r"[\w\W]{1,4}", piece) and re.search("[a-z]", piece) and not num_han(piece))
        told = STORY_WORD.search(piece) or num_han(piece) > MAX_STUCK or in_quotes(line, place + 1)
        if beside and words >= 2 and not told:
            kept[number] = HOLE
        place += len(piece)
    return "".join(kept)
