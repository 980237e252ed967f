"""A text -> figures of its style, and how much of it stands in the book it learned from.

Style, of a book and of generated texts alike: length of sentences and paragraphs, share of dialogue, balanced
quotation marks, …… in a thousand characters, variety (different runs of four characters among all of them), texts that
are caught in a loop.

Runs that are copied are followed from one pair of characters to the next, at all places of the book at once::

    the book   萧 炎 大 喝 一 声 … 萧 炎 大 笑        萧炎 stands at 0 and 7
    a text     且 说 萧 炎 大 笑                     炎大 follows both, 大笑 the second alone: 4 characters are copied
"""

import re
from collections.abc import Sequence

import numpy as np

from novelgpt.messages import say

# what the style of a text is measured by
DISTINCT_WINDOW = 1000  # characters; variety falls with length, so it is the mean over stretches of so many
SENTENCE = re.compile(r"[^。！？!?…\n]+")
DIALOGUE = re.compile(r"“([^“”]*)”|「([^「」]*)」")
COLUMNS = ("written", "the book")
LABELS = {
    "sentence_length": "characters in a sentence",
    "paragraph_length": "characters in a paragraph",
    "dialogue_share": "within quotation marks",
    "quotes_balanced": "paragraphs that close their quotes",
    "ellipses": "…… in 1,000 characters",
    "distinct_4": "variety (100%: nothing repeated)",
    "loops": "texts caught in a loop",
}
OPENING_QUOTES, CLOSING_QUOTES = "“「『", "”」』"

# what counts as a loop
LOOP_STEP = 16  # tokens between two looks for a loop
LONGEST_PERIOD = 120  # tokens
LOOP_TIMES = 4  # a loop is a run repeated this often ...
SHORTEST_LOOP = 60  # ... over at least this many tokens
LONG_RUN = 20  # characters; runs of at least this length count as copied
CODE_BITS = 21  # bits of a code point
DISCOUNT = 0.75  # of every count of a pair


def measure_style(texts: Sequence[str]) -> dict[str, float]:
    """Return the figures of generated samples, or of the chapters of a book.

    >>> measure_style(["“走！”他说。\\n她笑了……"])["quotes_balanced"]
    1.0
    """
    # cut the texts into sentences, paragraphs, dialogue and stretches
    whole = "\n".join(texts)
    characters = max(1, sum(len(text) for text in texts))
    sentences = [part for part in SENTENCE.findall(whole) if part.strip('”’」』" ')]
    paragraphs = [line for line in whole.split("\n") if line.strip()]
    dialogue = sum(len(one or other) for one, other in DIALOGUE.findall(whole))
    stretches = [
        text[start : start + DISTINCT_WINDOW] for text in texts for start in range(0, len(text), DISTINCT_WINDOW)
    ]
    # measure each of them
    figures = {
        "sentence_length": mean([len(part) for part in sentences]),
        "paragraph_length": mean([len(line) for line in paragraphs]),
        "dialogue_share": dialogue / characters,
        "quotes_balanced": mean([is_quote_balanced(line) for line in paragraphs]),
        "ellipses": 1000 * whole.count("……") / characters,
        "distinct_4": mean([distinct_share(stretch, 4) for stretch in stretches if len(stretch) >= 4]),
        "loops": mean([find_loop([ord(char) for char in text]) is not None for text in texts]),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 for no values."""
    return sum(values) / len(values) if values else 0.0


def is_quote_balanced(paragraph: str) -> bool:
    """Tell whether every quotation mark is opened and closed, in order.

    >>> is_quote_balanced("“走！”"), is_quote_balanced("”走“"), is_quote_balanced("“走")
    (True, False, False)
    """
    depth = 0
    for char in paragraph:
        depth += (char in OPENING_QUOTES) - (char in CLOSING_QUOTES)
        if depth < 0:
            return False
    return depth == 0


def distinct_share(text: str, size: int) -> float:
    """Return the share of different ones among a text's runs of `size` characters.

    >>> distinct_share("哈哈哈哈哈哈", 4)
    0.3333333333333333
    """
    runs = [text[start : start + size] for start in range(len(text) - size + 1)]
    return len(set(runs)) / len(runs)


def say_style(written: dict[str, float], book: dict[str, float] | None) -> None:
    """Print the figures side by side on stderr; without the book one column."""
    # lengths with one digit, shares as percent
    cells = {}
    for name, value in written.items():
        form = ".1f" if name.endswith("length") or name == "ellipses" else ".0%"
        cells[name] = f"{value:9{form}}" + ("" if book is None else f"{book[name]:12{form}}")
    say(f"{'':36}{COLUMNS[0]:>9}" + ("" if book is None else f"{COLUMNS[1]:>12}"))
    for name, label in LABELS.items():
        say(f"{label:36}{cells[name]}")


def find_loop(ids: Sequence[int]) -> int | None:
    """Return where to cut a text that ends in a loop, after the loop's first round; None when it does not.

    >>> find_loop([9, 8] + [1, 2, 3] * 20)
    5
    >>> find_loop(list(range(100))) is None
    True
    """
    tail = np.asarray(ids[-LOOP_TIMES * LONGEST_PERIOD - LOOP_STEP :])
    for period in range(1, min(LONGEST_PERIOD, len(tail) // LOOP_TIMES) + 1):
        # most periods are ruled out by the last token alone
        if tail[-1] != tail[-1 - period]:
            continue
        # the run reaches back to the last token that differs from the one a period before it
        different = np.flatnonzero(tail[period:] != tail[:-period])
        run = len(tail) - (int(different[-1]) + 1 if len(different) else 0)  # tokens of the loop seen
        if run >= max(SHORTEST_LOOP, LOOP_TIMES * period):
            return len(ids) - run + period
    return None


class CopyIndex:
    """All pairs of characters of a book, in which runs of a text are looked up in a moment.

    Args:
        book: the whole text, documents divided by line breaks; 12 bytes of memory a character.

    >>> CopyIndex("萧炎大喝一声\\n萧炎大笑").measure("且说萧炎大笑")
    {'longest': 4, 'share_20': 0.0}
    """

    def __init__(self, book: str):
        keys = pair_keys(book)
        self.places = np.argsort(keys, kind="stable").astype(np.int32)  # (N,), of equal pairs in reading order
        self.keys = keys[self.places]  # (N,), ascending

    def measure(self, text: str) -> dict[str, float]:
        """Return the longest run of a text that is in the book, in characters, and the share of it in long ones.

        Runs of a single character do not count: every one of them is in the book.
        """
        keys = pair_keys(text)
        first, last = (np.searchsorted(self.keys, keys, side=side) for side in ("left", "right"))  # (P,) each
        covered, longest = np.zeros(len(text), bool), 0
        before, lengths = np.zeros(0, np.int32), np.zeros(0, np.int64)
        for number in range(len(keys)):
            # a run goes on where the pair before it stood one character earlier
            here = self.places[first[number] : last[number]]
            slots = np.searchsorted(before, here - 1)
            inside = slots < len(before)
            goes_on = np.zeros(len(here), bool)
            goes_on[inside] = before[slots[inside]] == here[inside] - 1
            grown = np.full(len(here), 2)
            grown[goes_on] = lengths[slots[goes_on]] + 1
            before, lengths = here, grown
            run = int(grown.max(initial=0))
            longest = max(longest, run)
            if run >= LONG_RUN:
                covered[number + 2 - run : number + 2] = True
        return {"longest": longest, "share_20": round(float(covered.mean()), 4) if text else 0.0}


def pair_keys(text: str) -> np.ndarray:
    """Return a number for each two characters that follow each other in a text of N, int64 (N - 1,)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4").astype(np.int64)
    return codes[:-1] << CODE_BITS | codes[1:]


def score_documents(documents: Sequence[str]) -> list[float | None]:
    """Return what each document of a book costs by pairs counted in all the others, in nats a character.

    A chapter of another book, or one that is garbled, stands out. The chance of a character is that of its pair after
    absolute discounting, and where the others do not have the pair, its own (Ney, Essen and Kneser 1994); a character
    that they never have gets the chance of one that came once.

    Returns:
        None for a document of fewer than 2 characters, and for all where there is only one.

    >>> [round(nats, 2) for nats in score_documents(["山中有山", "山中有水", "云上风来"])]
    [1.66, 1.66, 2.64]
    """
    if len(documents) < 2:
        return [None] * len(documents)
    keys = [pair_keys(document) for document in documents]
    pairs, sums = np.unique(np.concatenate(keys), return_counts=True)
    heads = [key >> CODE_BITS for key in keys]
    tails = [key & (1 << CODE_BITS) - 1 for key in keys]
    most = max((int(part.max(initial=0)) for part in (*heads, *tails)), default=0) + 1
    after, before = (np.bincount(np.concatenate(parts), minlength=most) for parts in (tails, heads))
    kinds = np.bincount(pairs >> CODE_BITS, minlength=most)  # different characters behind each
    return [
        score_document(*parts, (pairs, sums, after, before, kinds)) for parts in zip(keys, heads, tails, strict=True)
    ]


def score_document(keys: np.ndarray, heads: np.ndarray, tails: np.ndarray, counts: tuple) -> float | None:
    """Return the nats a character of one document, by the counts of all without its own; see score_documents."""
    if not len(keys):
        return None
    pairs, sums, after, before, kinds = counts
    own, inverse, times = np.unique(keys, return_inverse=True, return_counts=True)
    seen = (sums[np.searchsorted(pairs, own)] - times)[inverse]  # of each pair, elsewhere
    followed = before[heads] - np.bincount(heads)[heads]  # of its first character, elsewhere
    single = np.maximum(after[tails] - np.bincount(tails)[tails], 0.5) / max(1, after.sum() - len(keys) + 1)
    left = np.where(followed > 0, DISCOUNT * np.minimum(kinds[heads], followed) / np.maximum(followed, 1), 1.0)
    chances = np.maximum(seen - DISCOUNT, 0) / np.maximum(followed, 1) + left * single
    return float(-np.log(chances).mean())
