"""Text as found -> clean lines, and a receipt for everything that was changed.

Six steps, in this order; every one counts what it changes and keeps the first three examples with their lines::

    line ends       CR LF, CR, VT, FF, U+0085, U+2028, U+2029   -> newline
    blanks          tab, no-break spaces                        -> space
    invisible       all of Unicode category C but the newline, U+FFFD -> nothing; 〓 for a letter lost inside a word
    entities        &quot; &#8220; &nbsp;                       -> the character (then the first three steps again)
    line edges      indents and trailing blanks                 -> nothing
    inner gaps      two or more blanks inside a line            -> one space

Nothing else is touched: width, punctuation and script stay as they are unless asked. Cleaning a clean text changes
nothing.
"""

import html
import html.entities
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError

NUM_EXAMPLES = 3
CONTEXT = 12  # characters shown on either side of an example
MANY = 200  # characters to remove; a class of more in a regular expression is slower than a table
REPLACEMENT = "\ufffd"
GETA = "\u3013"  # 〓, the printer's sign for a character that is not to be had
MARKED = f"characters lost inside words, marked {GETA}"
PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
OTHER_LINE_ENDS = "\x0b\x0c\x85\u2028\u2029"
OTHER_BLANKS = "\t\xa0\u2007\u202f"  # the tab and the three no-break spaces
CLASSES = {
    "Cc": "control characters",
    "Cf": "zero-width and direction marks",
    "Cs": "lone surrogates",
    "Co": "private-use characters",
    "Cn": "unassigned code points",
}
ENTITY = re.compile(r"&(?:#o?[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
GAP = re.compile("[ \u1680\u2000-\u200a\u205f\u3000]{2,}")
SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
TO_HALF = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
TO_FULL = {half: full for full, half in TO_HALF.items()}


@dataclass
class Cleaned:
    """A cleaned text and the receipt of its cleaning."""

    lines: list[str] = field(default_factory=list)  # blank ones included, numbered as in the text that came in
    counts: Counter[str] = field(default_factory=Counter)  # of each class of change
    code_points: Counter[str] = field(default_factory=Counter)  # of each removed character, by "U+0007"
    examples: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # line from 1, text before the change

    @property
    def text(self) -> str:
        """The paragraphs, separated by a single newline."""
        return "\n".join(filter(None, self.lines))

    def add(self, later: "Cleaned", lines_before: int) -> None:
        """Add the receipt of the text after this many lines; its own lines are left out."""
        self.counts.update(later.counts)
        self.code_points.update(later.code_points)
        for name, shown in later.examples.items():
            places = self.examples.setdefault(name, [])
            places += [(lines_before + line, around) for line, around in shown][: NUM_EXAMPLES - len(places)]

    def add_examples(self, name: str, text: str, positions: list[int]) -> None:
        """Keep the first few places of a class; positions are offsets into text."""
        shown = self.examples.setdefault(name, [])
        for position in positions[: NUM_EXAMPLES - len(shown)]:
            start = max(text.rfind("\n", 0, position) + 1, position - CONTEXT)
            end = text.find("\n", position)
            end = min(position + CONTEXT, len(text) if end < 0 else end)
            shown.append((text.count("\n", 0, position) + 1, text[start:end]))


def clean_text(
    text: str, *, width: str | None = None, traditional_to_simplified: bool = False, keep_private: bool = False
) -> Cleaned:
    r"""Clean one text and record what was changed; cleaning the result again in the same way changes nothing.

    Args:
        text: any string, lone surrogates included.
        width: "half" changes full-width ASCII (U+FF01 to U+FF5E) to ASCII, "full" does the opposite, None neither.
        traditional_to_simplified: convert the script with OpenCC.
        keep_private: leave private-use characters in; else those inside words become 〓.

    Raises:
        UserError: an unknown width, or OpenCC is asked for and not installed.

    >>> cleaned = clean_text("　　萧炎\x07大喝：\r\n\r\n&ldquo;来！&rdquo; ")
    >>> cleaned.text
    '萧炎大喝：\n“来！”'
    >>> cleaned.counts["control characters"], cleaned.examples["control characters"]
    (1, [(1, '\u3000\u3000萧炎\x07大喝：')])
    """
    if width not in (None, "half", "full"):
        raise UserError(f"--width: found {width!r}, expected half or full", "--width half", EXIT_USAGE)
    # an entity may stand for a blank, an invisible character or another entity: repeat until nothing changes
    receipt = Cleaned()
    while True:
        text = unify_line_ends(text, receipt)
        text = remove_invisible(text, receipt, keep_private=keep_private)
        plain = change_width(text, TO_HALF, receipt) if width == "half" else text
        plain = decode_entities(plain, receipt)
        if plain == text:
            break
        text = plain
    # full width comes last: in wide characters the loop would find no entities
    if traditional_to_simplified:
        text = simplify(text, receipt)
    if width == "full":
        text = change_width(text, TO_FULL, receipt)
    receipt.lines = trim_lines(text, receipt)
    receipt.counts = +receipt.counts  # without zeros
    receipt.examples = {name: shown for name, shown in receipt.examples.items() if shown}
    return receipt


def unify_line_ends(text: str, receipt: Cleaned) -> str:
    """Return a text with every kind of line end as a newline."""
    # CR LF first, so that what is left of CR stands alone
    if "\r" in text:
        receipt.counts["CR LF line ends"] += text.count("\r\n")
        text = replace_characters(text.replace("\r\n", "\n"), "\r", "\n", "lone CR line ends", receipt)
    for char in OTHER_LINE_ENDS:
        text = replace_characters(text, char, "\n", "other line ends (VT, FF, U+0085, U+2028, U+2029)", receipt)
    return text


def replace_characters(text: str, char: str, plain: str, name: str, receipt: Cleaned) -> str:
    """Replace a character by a plain one, count it and keep its first places."""
    if char not in text:
        return text
    receipt.counts[name] += text.count(char)
    places = (match.start() for match in re.finditer(char, text))
    receipt.add_examples(name, text, list(islice(places, NUM_EXAMPLES)))
    return text.replace(char, plain)


def removal_class(char: str, *, keep_private: bool) -> str | None:
    """Name the class under which a character is removed; None when it stays.

    >>> removal_class("\\u200b", keep_private=False), removal_class("萧", keep_private=False)
    ('zero-width and direction marks', None)
    """
    if char == REPLACEMENT:
        return "replacement characters U+FFFD"
    category = unicodedata.category(char)
    if category[0] != "C" or char == "\n" or (keep_private and category == "Co"):
        return None
    return CLASSES[category]


def remove_invisible(text: str, receipt: Cleaned, *, keep_private: bool) -> str:
    """Turn tabs and no-break spaces into spaces, and take out what no reader sees."""
    alphabet = set(text)  # a few thousand characters, asked instead of a few million
    for char in OTHER_BLANKS:
        if char in alphabet:
            text = replace_characters(text, char, " ", "tabs" if char == "\t" else "no-break spaces", receipt)
    # JSON writes characters beyond the basic plane as two surrogates; only lone ones are dirt
    if any("\ud800" <= char <= "\udfff" for char in alphabet):
        # a high and a low surrogate are joined into the character they stand for
        text = SURROGATE_PAIR.sub(lambda pair: pair.group().encode("utf-16", "surrogatepass").decode("utf-16"), text)
        alphabet = set(text)
    # what goes, by class; in order, so that the receipt is the same in every run
    removed = {}
    for char in sorted(alphabet.difference(OTHER_BLANKS)):
        if name := removal_class(char, keep_private=keep_private):
            removed[char] = name
    if not removed:
        return text
    if len(removed) > MANY:
        positions = [position for position, char in enumerate(text) if char in removed]
        count_removed(text, positions, removed, receipt)
        return mark_lost(text, removed, receipt).translate(dict.fromkeys(map(ord, removed)))
    pattern = re.compile("[" + "".join(f"\\U{ord(char):08x}" for char in sorted(removed)) + "]")
    count_removed(text, [match.start() for match in pattern.finditer(text)], removed, receipt)
    return pattern.sub("", mark_lost(text, removed, receipt))


def mark_lost(text: str, removed: Mapping[str, str], receipt: Cleaned) -> str:
    """Return a text with 〓 for each private-use character and run of U+FFFD beside a letter, and count them."""
    if not any(char == REPLACEMENT or name == CLASSES["Co"] for char, name in removed.items()):
        return text
    lost = REPLACEMENT + (PRIVATE if CLASSES["Co"] in removed.values() else "")

    def mark(run: re.Match[str]) -> str:
        around = text[max(0, run.start() - 1) : run.start()] + text[run.end() : run.end() + 1]
        if not any(map(str.isalnum, around)):
            return run.group()
        marks = GETA * len(re.sub(f"{REPLACEMENT}+", REPLACEMENT, run.group()))
        receipt.counts[MARKED] += len(marks)
        return marks

    return re.sub(f"[{lost}]+", mark, text)


def count_removed(text: str, positions: list[int], removed: dict[str, str], receipt: Cleaned) -> None:
    """Record what is removed: by class, by code point, and the first places."""
    for char, number in Counter(map(text.__getitem__, positions)).items():
        receipt.counts[removed[char]] += number
        receipt.code_points[f"U+{ord(char):04X}"] += number
    for name in dict.fromkeys(removed.values()):
        places = (position for position in positions if removed[text[position]] == name)
        receipt.add_examples(name, text, list(islice(places, NUM_EXAMPLES)))


def entity_character(match: re.Match[str]) -> str:
    """Give the character of one HTML entity, or the entity itself where there is no such character.

    >>> ENTITY.sub(entity_character, "&ldquo;&#33831;&#x708E;&#o39;&nosuch;")
    "“萧炎'&nosuch;"
    """
    entity = match.group()
    if entity[1] == "#":
        return html.unescape(entity.replace("#o", "#"))
    return html.entities.html5.get(entity[1:], entity)


def decode_entities(text: str, receipt: Cleaned) -> str:
    """Decode HTML entities that end in a semicolon, as far as they are known."""
    if "&" not in text:
        return text
    positions = [match.start() for match in ENTITY.finditer(text) if entity_character(match) != match.group()]
    receipt.counts["HTML entities"] += len(positions)
    receipt.add_examples("HTML entities", text, positions[:NUM_EXAMPLES])
    return ENTITY.sub(entity_character, text)


def change_width(text: str, table: dict[int, int], receipt: Cleaned) -> str:
    """Change full-width ASCII to half-width or the other way round, by table."""
    pattern = re.compile("[" + "".join(f"\\u{code:04x}" for code in table) + "]+")
    receipt.counts["widths changed"] += sum(len(run) for run in pattern.findall(text))
    return pattern.sub(lambda match: match.group().translate(table), text)


def simplify(text: str, receipt: Cleaned) -> str:
    """Convert traditional to simplified characters with OpenCC."""
    try:
        from opencc import OpenCC
    except ImportError as problem:
        message = "--traditional_to_simplified: the package OpenCC is not installed"
        raise UserError(message, "pip install OpenCC", EXIT_ENVIRONMENT) from problem
    simple = OpenCC("t2s").convert(text)
    receipt.counts["characters simplified"] += sum(old != new for old, new in zip(text, simple, strict=False))
    return simple


def trim_lines(text: str, receipt: Cleaned) -> list[str]:
    """Strip the edges of every line and close the gaps inside; blank lines stay as empty strings."""
    # edges; where nothing is stripped, `strip` returns the line itself
    lines = text.split("\n")
    trimmed = [line.strip() for line in lines]
    for number, (line, plain) in enumerate(zip(lines, trimmed, strict=True), 1):
        if line is plain or line == plain:
            continue
        for name, found in (
            ("lines of nothing but blanks", not plain),
            ("indents", plain and line[0].isspace()),
            ("trailing blanks", plain and line[-1].isspace()),
        ):
            if found:
                receipt.counts[name] += 1
                if receipt.counts[name] <= NUM_EXAMPLES:
                    receipt.examples.setdefault(name, []).append((number, line[: 2 * CONTEXT]))
    # gaps inside the lines, over the whole text at once
    text = "\n".join(trimmed)
    gaps = [match.start() for match in GAP.finditer(text)]
    if not gaps:
        return trimmed
    receipt.counts["gaps of several blanks"] += len(gaps)
    receipt.add_examples("gaps of several blanks", text, gaps[:NUM_EXAMPLES])
    return GAP.sub(" ", text).split("\n")
