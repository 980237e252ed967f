"""Texts a model wrote, and chapters that its author wrote -> how alike they read, in figures.

::

    written   texts of equal length                     loops      characters that repeat a run of 4 or 8
    pages     the held-out chapters in such pieces      copied     … that lie in runs of the training text
    learned   the training chapters                     likeness   can a linear classifier tell them apart
                                                        spread     what counting one of them says of the other

A figure is a mean over texts, with an interval of 95 % from texts drawn with replacement. Beside it stands the author's
own, on pages of the same length; a text and a page are cut at both ends, so what a cut breaks counts for nothing.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from novelgpt.corpus.style import DIALOGUE, SENTENCE, is_quote_balanced
from novelgpt.evaluation.ngram import Counts
from novelgpt.writing.book import find_speakers
from novelgpt.writing.copying import CopyMeter, utf32_codes

DRAWS = 1000  # samples of the bootstrap
LIKENESS_LENGTH = 500  # characters of a text that the classifier sees
FOLDS = 5
MOST_GRAMS = 20_000  # the commonest 1- and 2-grams that it counts
RIDGE = 1.0  # its penalty on squared weights
NEWTON_STEPS = 25
SPREAD_ORDER = 4
SPREAD_CHARACTERS = 100_000  # that are counted
KNOWN_TIMES = 3  # that the book writes the first two characters of a name it knows
QUOTE_MARKS = "“”「」『』"


@dataclass(frozen=True)
class Page:
    """A text of the author or of a model, and where it belongs."""

    text: str
    group: int  # of the chapter that it was cut from, or that its prompt was cut from


@dataclass(frozen=True)
class Figure:
    """A figure of the texts, its interval, and the author's."""

    value: float
    low: float
    high: float
    author: float

    def as_json(self) -> dict:
        """Return it with four digits."""
        interval = [rounded(self.low), rounded(self.high)]
        return {"value": rounded(self.value), "interval": interval, "author": rounded(self.author)}


def rounded(value: float) -> float | None:
    """Return a number with four digits; None for one that is none."""
    return round(float(value), 4) if np.isfinite(value) else None


def cut_pages(chapters: Sequence[str], length: int) -> list[Page]:
    """Cut chapters into pages of so many characters; what is left of a chapter is dropped.

    >>> [page.text for page in cut_pages(["甲乙丙丁戊", "己庚"], 2)]
    ['甲乙', '丙丁', '己庚']
    """
    return [
        Page(chapter[start : start + length], number)
        for number, chapter in enumerate(chapters)
        for start in range(0, len(chapter) - length + 1, length)
    ]


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return where 95 % of the means of texts drawn with replacement lie; values that are no numbers do not count.

    >>> interval([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(known), size=(DRAWS, len(known)))
    low, high = np.quantile(known[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def mean(values: Sequence[float]) -> float:
    """Return the mean of those values that are numbers."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def compare(measure: Callable[[str], float], written: Sequence[Page], pages: Sequence[Page]) -> Figure:
    """Measure every text and every page."""
    values = [measure(page.text) for page in written]
    return Figure(mean(values), *interval(values), mean([measure(page.text) for page in pages]))


# ---- what one text says


def repeated_share(text: str, size: int) -> float:
    """Return the share of a text's runs of `size` characters that it has had before.

    >>> repeated_share("甲乙甲乙甲", 2)  # 甲乙 乙甲 甲乙 乙甲
    0.5
    """
    runs = [text[start : start + size] for start in range(len(text) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def copied_share(meter: CopyMeter, text: str, least: int) -> float:
    """Return the share of a text's characters in runs of at least so many that the book has.

    >>> copied_share(CopyMeter(["甲乙丙丁"]), "甲乙丙己", 3)
    0.75
    """
    if not text:
        return 0.0
    lengths, _ = meter.match_lengths(utf32_codes(text))
    edges = np.zeros(len(text) + 1, np.int64)
    for start in np.flatnonzero(lengths >= least):
        edges[start] += 1
        edges[start + lengths[start]] -= 1
    return float((edges[:-1].cumsum() > 0).mean())


def whole_paragraphs(text: str) -> list[str]:
    r"""Return the paragraphs that no cut has gone through.

    >>> whole_paragraphs("尾\n“中”\n\n头")
    ['“中”']
    """
    return [line for line in text.split("\n")[1:-1] if line.strip()]


def balanced_share(text: str) -> float:
    r"""Return the share of balanced ones among whole paragraphs with quotation marks, nan without any.

    >>> balanced_share("尾\n“中”\n”中\n中\n头")
    0.5
    """
    quoted = [line for line in whole_paragraphs(text) if any(mark in line for mark in QUOTE_MARKS)]
    return mean([is_quote_balanced(line) for line in quoted])


def known_share(text: str, known: str) -> float:
    """Return the share of speakers that a book, with the prompts, knows: it has their first two characters often.

    >>> known_share("宝玉笑道：“好。”林惊羽道：“好。”", "宝玉来了。" * KNOWN_TIMES)
    0.5
    """
    return mean([known.count(name[:2]) >= KNOWN_TIMES for name in find_speakers(text)])


def sentence_lengths(text: str) -> list[int]:
    """Return the characters of each whole sentence.

    >>> sentence_lengths("尾。甲乙。丙丁戊！头")
    [2, 3]
    """
    return [len(part) for part in SENTENCE.findall(text)[1:-1] if part.strip('”’」』" ')]


def sentence_mean(text: str) -> float:
    """Return the mean length of a text's sentences."""
    return mean(sentence_lengths(text))


def sentence_rhythm(text: str) -> float:
    """Return how much a text's sentences differ in length: the standard deviation over the mean.

    >>> sentence_rhythm("尾。甲乙。丙丁戊己庚辛！头")  # 2 and 6: 2 / 4
    0.5
    """
    lengths = sentence_lengths(text)
    return float(np.std(lengths) / np.mean(lengths)) if len(lengths) > 1 else float("nan")


def paragraph_mean(text: str) -> float:
    """Return the mean length of a text's whole paragraphs."""
    return mean([len(line) for line in whole_paragraphs(text)])


def dialogue_share(text: str) -> float:
    """Return the share of a text between quotation marks.

    >>> dialogue_share("“甲乙”丙")
    0.4
    """
    return sum(len(one or other) for one, other in DIALOGUE.findall(text)) / max(1, len(text))


# ---- likeness: can a classifier tell the texts from the pages


def count_grams(texts: Sequence[str]) -> np.ndarray:
    """Return a row of unit length for each text: roots of the counts of the commonest 1- and 2-grams, (N, F)."""
    grams = [[*text, *map("".join, itertools.pairwise(text))] for text in texts]
    names, inverse = np.unique(np.concatenate([np.array(row) for row in grams]), return_inverse=True)
    rows = np.repeat(np.arange(len(texts)), [len(row) for row in grams])
    common = np.argsort(-np.bincount(inverse), kind="stable")[:MOST_GRAMS]
    column = np.full(len(names), -1)
    column[common] = np.arange(len(common))
    kept = column[inverse] >= 0
    table = np.zeros((len(texts), len(common)))
    np.add.at(table, (rows[kept], column[inverse][kept]), 1)
    table = np.sqrt(table)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def fit_classifier(products: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a logistic regression with a penalty on its weights, by Newton's method on the products of its rows.

    Args:
        products: (N, N) scalar products of the rows.
        labels: (N,) 0 or 1.

    Returns:
        The weight of each row (N,) in the scores of others, and what is added to them.
    """
    size = len(labels)
    design = np.hstack([products, np.ones((size, 1))])  # (N, N + 1)
    penalty = np.zeros((size + 1, size + 1))
    penalty[:size, :size] = RIDGE * products
    weights = np.zeros(size + 1)
    for _ in range(NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (chances - labels) + penalty @ weights
        curvature = design.T @ (design * (chances * (1 - chances))[:, None]) + penalty
        step = np.linalg.solve(curvature + 1e-8 * np.eye(size + 1), gradient)
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    return weights[:-1], float(weights[-1])


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the chance that one of label 1 has the higher score than one of label 0; equal ones count half.

    >>> area_under_curve(np.array([3.0, 1.0, 2.0, 1.0]), np.array([1, 1, 0, 0]))  # 3>2 3>1 1<2 1=1
    0.625
    """
    ones, zeros = scores[labels == 1], np.sort(scores[labels == 0])
    below, reached = np.searchsorted(zeros, ones), np.searchsorted(zeros, ones, side="right")
    return float((below + reached).mean() / 2 / len(zeros))


def classify(first: Sequence[Page], second: Sequence[Page]) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of every text by a classifier that has seen none of its group, and whose it is (N,), (N,)."""
    pages = [*first, *second]
    labels = np.repeat([1, 0], [len(first), len(second)])
    table = count_grams([page.text for page in pages])
    products, scores = table @ table.T, np.zeros(len(pages))
    groups = np.array([page.group for page in pages])
    names = np.unique(groups)
    folds = {int(name): place % FOLDS for place, name in enumerate(names)}
    fold = np.array([folds[int(group)] for group in groups])
    for number in range(min(FOLDS, len(names))):
        seen, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(set(labels[seen].tolist())) == 2:
            weights, constant = fit_classifier(products[np.ix_(seen, seen)], labels[seen])
            scores[held] = products[np.ix_(held, seen)] @ weights + constant
    return scores, labels


def short_pages(pages: Sequence[Page], length: int = LIKENESS_LENGTH) -> list[Page]:
    """Return pages cut into shorter ones, each in the group that it was in."""
    return [Page(short.text, page.group) for page in pages for short in cut_pages([page.text], length)]


def measure_likeness(written: Sequence[Page], pages: Sequence[Page], length: int = LIKENESS_LENGTH) -> Figure:
    """Return the area under the curve of a linear classifier, 0.5 where texts and pages cannot be told apart.

    The author's is that of every other chapter against the ones between. It is told apart by chapters: those of a fold,
    and the texts whose prompts are from them, are scored by what was learned on the others.
    """
    scores, labels = classify(short_pages(written, length), short_pages(pages, length))
    drawn, areas = np.random.default_rng(0), []
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    for _ in range(DRAWS // 5):
        chosen = np.concatenate([drawn.choice(ones, len(ones)), drawn.choice(zeros, len(zeros))])
        areas.append(area_under_curve(scores[chosen], labels[chosen]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return Figure(area_under_curve(scores, labels), float(low), float(high), author_likeness(pages, length))


def author_likeness(pages: Sequence[Page], length: int = LIKENESS_LENGTH) -> float:
    """Return how well the author's odd chapters can be told from the even ones; two neighbours are a group."""
    short = short_pages(pages, length)
    names = {group: place for place, group in enumerate(sorted({page.group for page in short}))}
    if len(names) < 4:
        return float("nan")
    halves = [
        [Page(page.text, names[page.group] // 2) for page in short if names[page.group] % 2 == odd] for odd in (0, 1)
    ]
    scores, labels = classify(*halves)
    return area_under_curve(scores, labels)


def pick_pages(chapters: Sequence[str], count: int, length: int) -> list[Page]:
    """Return so many pages of chapters, spread evenly; their groups are below 0, so that they are nobody else's.

    >>> [page.text for page in pick_pages(["甲乙丙丁", "戊己庚辛"], 2, 2)]
    ['甲乙', '戊己']
    """
    pages = [Page(page.text, -1 - page.group) for page in cut_pages(chapters, length)]
    return spread_evenly(pages, count)


def spread_evenly(pages: Sequence[Page], count: int) -> list[Page]:
    """Return so many of the pages, all of them where there are no more.

    >>> len(spread_evenly([Page("甲", 0)] * 3, 5))
    3
    """
    count = min(count, len(pages))
    return [pages[place * len(pages) // count] for place in range(count)]


# ---- spread: what counting says


def counted_losses(counted: Sequence[str], texts: Sequence[str], alphabet: int) -> list[float]:
    """Return the nats per character of each text by 4-grams of other texts; the alphabet has so many characters."""
    codes = [utf32_codes(text) for text in ("\n".join(counted), *texts)]
    chances, _ = Counts(codes[0], codes[1:], vocab_size=alphabet, order=SPREAD_ORDER).score(SPREAD_ORDER)
    ends = np.cumsum([len(text) for text in codes[1:]])
    return [float(-np.log(part).mean()) if len(part) else float("nan") for part in np.split(chances, ends[:-1])]


def measure_spread(written: Sequence[Page], pages: Sequence[Page], learned: Sequence[str]) -> dict[str, Figure]:
    """Return how much the texts lack of the author, and what they have beside; 0 would be the author himself.

    - forward: nats a character of the texts by 4-grams of the book, less those of the author's pages. Below 0 the texts
      are more ordinary than the author, above 0 stranger.
    - reverse: nats a character of the author's pages by 4-grams of the texts, less those by as much of the book. Above
      0 the texts have less of what the author has: they are narrow, or wrong.
    """
    ours, theirs = [page.text for page in written], [page.text for page in pages]
    book = "\n".join(learned)[-SPREAD_CHARACTERS:]
    alphabet = len(set(book).union(*ours, *theirs))
    forward = counted_losses([book], [*ours, *theirs], alphabet)
    own = mean(forward[len(ours) :])
    differences = [loss - own for loss in forward[: len(ours)]]
    size = min(len(book), sum(map(len, ours)))
    by_texts = counted_losses(["\n".join(ours)[:size]], theirs, alphabet)
    by_book = counted_losses([book[-size:]], theirs, alphabet)
    lacks = [one - other for one, other in zip(by_texts, by_book, strict=True)]
    return {
        "forward": Figure(mean(differences), *interval(differences), 0.0),
        "reverse": Figure(mean(lacks), *interval(lacks), 0.0),
    }


# ---- all of it


def measure_texts(
    written: Sequence[Page], pages: Sequence[Page], learned: Sequence[str], meter: CopyMeter, prompts: str = ""
) -> dict[str, Figure]:
    """Return every figure of texts.

    Args:
        written: texts of a model, the group of each that of the chapter of its prompt.
        pages: of the author, as long as the texts.
        learned: the training chapters.
        meter: of the training chapters.
        prompts: what the texts go on with; names in it are known too.
    """
    length = min(LIKENESS_LENGTH, min(len(page.text) for page in written))
    known = "\n".join([*learned, prompts * KNOWN_TIMES])
    usual = np.quantile([repeated_share(page.text, 8) for page in pages], 0.95)
    per_text = {
        "loops": lambda text: repeated_share(text, 8),
        "loops_4": lambda text: repeated_share(text, 4),
        "within_usual_loops": lambda text: float(repeated_share(text, 8) <= usual),
        "copied_10": lambda text: copied_share(meter, text, 10),
        "copied_20": lambda text: copied_share(meter, text, 20),
        "quotes": balanced_share,
        "names_known": lambda text: known_share(text, known),
        "sentence_length": sentence_mean,
        "sentence_rhythm": sentence_rhythm,
        "paragraph_length": paragraph_mean,
        "dialogue_share": dialogue_share,
    }
    spread = measure_spread(written, pages, learned)
    widest = max(spread.values(), key=lambda figure: abs(figure.value))
    figures = {"likeness_auc": measure_likeness(written, pages, length), "spread": widest, **spread}
    # what the author himself gets who wrote the other chapters
    own = pick_pages(learned, len(written), len(written[0].text))
    figures["likeness_learned"] = measure_likeness(own, pages, length)
    return figures | {name: compare(measure, written, pages) for name, measure in per_text.items()}
