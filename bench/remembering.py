"""Long texts, and people that a prompt brings in: does the model keep what it began with?

names    a page of held-out text with another name in a person's place → texts → how often the new name comes
         beside it: how often the person comes in what the author wrote after these pages
drift    texts of 20,000 characters → figures of the first, the middle and the last thousand, with their intervals
next     nats of a held-out chapter by the model, and by a copy that has learned the chapter before it
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

import reading

from novelgpt.evaluation import Measure
from novelgpt.messages import EXIT_INPUT, UserError
from novelgpt.writing.book import find_speakers
from novelgpt.writing.copying import CopyMeter

Write = Callable[[list[str], int, int], list[list[str]]]  # prompts, texts of each, characters -> texts of each prompt
NEW_NAMES = "林惊羽", "林驚羽"
PAGE = 400  # characters that bring a person in
LEAST_NAMED = 2  # times that it names the person
FOLLOWING = 2000  # characters in which the name is counted
TOGETHER = 5  # texts of one prompt
STRETCH = 1000  # characters of a long text that are measured


def find_person(chapters: Sequence[str]) -> str:
    """Return who speaks most.

    >>> find_person(["宝玉笑道：“好。”", "黛玉道：“好。”宝玉道：“好。”"])
    '宝玉'
    """
    found = Counter(name for chapter in chapters for name in find_speakers(chapter)).most_common(1)
    if not found:
        message = "--names: found nobody who speaks in the held-out chapters"
        raise UserError(message, "--person NAME, who is often there", EXIT_INPUT)
    return found[0][0]


def choose_name(text: str) -> str:
    """Return the new name in the characters that a book is written with.

    >>> choose_name("驚蛰"), choose_name("惊蛰")
    ('林驚羽', '林惊羽')
    """
    return max(NEW_NAMES, key=lambda name: sum(text.count(char) for char in name))


def find_scenes(chapters: Sequence[str], person: str, count: int) -> list[tuple[str, str]]:
    """Return pages that name a person, each with what the author wrote behind it, spread evenly; at most so many."""
    text = "\n".join(chapters)
    places = range(0, len(text) - PAGE - FOLLOWING + 1, PAGE)
    scenes = [(text[place : place + PAGE], text[place + PAGE :][:FOLLOWING]) for place in places]
    scenes = [scene for scene in scenes if scene[0].count(person) >= LEAST_NAMED]
    step = max(1, len(scenes) / max(1, count))
    return [scenes[int(place * step)] for place in range(min(count, len(scenes)))]


def name_rate(text: str, name: str) -> float:
    """Return how often 1,000 characters name a person; of a name of three characters the last two are enough.

    >>> name_rate("林惊羽道：“惊羽来也。”", "林惊羽") * 12 / 1000
    2.0
    """
    return 1000 * text.count(name[-2:]) / max(1, len(text))


def measure_names(write: Write, chapters: Sequence[str], num_texts: int, person: str | None) -> dict:
    """Return how often a new name comes again, as a share of how often the person does in the book.

    Args:
        write: lets the model write.
        chapters: held-out ones.
        num_texts: so many texts, a few of each page.
        person: whose place the new name takes; None for who speaks most.

    Returns:
        The Figure names_kept, and in words who was who.
    """
    person = person or find_person(chapters)
    name = choose_name("".join(chapters))
    scenes = find_scenes(chapters, person, max(1, num_texts // TOGETHER))
    if not scenes:
        message = (
            f"--person {person}: found on no held-out page {LEAST_NAMED} times with {FOLLOWING:,} characters behind"
        )
        raise UserError(message, f"--person {find_person(chapters)}", EXIT_INPUT)
    texts = write([page.replace(person, name) for page, _ in scenes], min(num_texts, TOGETHER), FOLLOWING)
    usual = reading.mean([name_rate(following, person) for _, following in scenes])
    kept = [reading.mean([name_rate(text, name) for text in group]) / max(usual, 1e-9) for group in texts]
    figure = reading.Figure(reading.mean(kept), *reading.interval(kept), 1.0)
    return {"names_kept": figure, "names": {"person": person, "new": name, "pages": len(scenes), "rate": usual}}


def stretches(text: str) -> list[str]:
    """Return the first, the middle and the last thousand characters of a long text."""
    middle = (len(text) - STRETCH) // 2
    return [text[:STRETCH], text[middle : middle + STRETCH], text[-STRETCH:]]


def repeated_before(text: str, end: str, size: int = 8) -> float:
    """Return the share of an end's runs of `size` characters that the text has had anywhere before.

    >>> repeated_before("甲乙丙丁甲乙丙戊", "甲乙丙戊", 3)
    0.5
    """
    before = text[: len(text) - len(end) + size - 1]
    runs = [end[start : start + size] for start in range(len(end) - size + 1)]
    return reading.mean([run in before for run in runs])


def measure_drift(texts: Sequence[str], learned: Sequence[str], meter: CopyMeter) -> dict[str, dict]:
    """Return figures of the first, middle and last thousand of long texts, and whether first and last agree.

    Args:
        texts: of several thousand characters.
        learned: the training chapters.
        meter: of these.
    """
    book = "\n".join(learned)[-reading.SPREAD_CHARACTERS :]
    parts = list(zip(*map(stretches, texts), strict=True))  # three times the texts
    alphabet = len(set(book).union(*texts))
    measures = {
        "loops": lambda text: reading.repeated_share(text, 8),
        "copied_10": lambda text: reading.copied_share(meter, text, 10),
        "sentence_length": reading.sentence_mean,
        "dialogue_share": reading.dialogue_share,
    }
    values = {name: [[measure(text) for text in part] for part in parts] for name, measure in measures.items()}
    values["nats_by_counting"] = [reading.counted_losses([book], part, alphabet) for part in parts]
    values["said_before"] = [
        [repeated_before(text[: text.rindex(end) + len(end)], end) for text, end in zip(texts, part, strict=True)]
        for part in parts
    ]
    return {name: describe_drift(three) for name, three in values.items()}


def describe_drift(three: Sequence[Sequence[float]]) -> dict:
    """Return means and intervals of three parts; they are steady where first and last share a part of their intervals.

    >>> describe_drift([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])["steady"]
    False
    """
    ends = [reading.interval(part) for part in three]
    first, last = ends[0], ends[-1]
    return {
        "means": [reading.rounded(reading.mean(part)) for part in three],
        "intervals": [[reading.rounded(end) for end in pair] for pair in ends],
        "steady": not (first[0] > last[1] or last[0] > first[1]),  # what was not found anywhere is steady
    }


def measure_next_chapter(session, model, chapters: Sequence[str], count: int) -> dict:
    """Return nats a token of chapters by a model, and by a copy that has learned the chapter before each.

    Args:
        session: opened with --adapt, so that its learner says how it learns.
        model: the trained GPT2LMHeadModel.
        chapters: held-out ones; of few tokens none.
        count: how many pairs of neighbours.
    """
    measure = Measure(model, session.tokenizer, stride=max(1, model.config.n_positions // 2))
    before, after = [], []
    for one, other in list(itertools.pairwise(chapters))[:count]:
        ids = session.tokenizer.encode_prefix(other).astype("int64")
        session.learner.begin(session.tokenizer.encode_prefix(one).tolist())
        learned = Measure(session.learner.network(), session.tokenizer, stride=measure.cut["stride"])
        before.append(float(measure.score(ids).nats.mean()))
        after.append(float(learned.score(ids).nats.mean()))
    gains = [new - old for new, old in zip(after, before, strict=True)]
    figures = {"before": reading.mean(before), "after": reading.mean(after), "difference": reading.mean(gains)}
    interval = [reading.rounded(end) for end in reading.interval(gains)]
    return {name: reading.rounded(value) for name, value in figures.items()} | {"interval": interval}
