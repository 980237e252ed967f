"""What the panels of the page show: passages copied from the book, style beside the book's, names it never writes.

A panel asks when there is a pause. The book and the index of its passages are read when they are first asked for;
without the book every panel says so.
"""

import base64
import html
import json
import threading
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from novelgpt.cli import PRESET, PRESETS, GenerateOptions, names_with
from novelgpt.corpus.encodings import decode_bytes
from novelgpt.corpus.headings import read_heading
from novelgpt.corpus.style import LABELS, measure_style
from novelgpt.languages import to_chinese
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError
from novelgpt.studio.jobs import Request
from novelgpt.writing.book import Book, find_book, hint_at_book, unseen_characters
from novelgpt.writing.copying import LONG_RUN, utf32_codes

OPENINGS = 20
TITLES, LONGEST_TITLE = 5, 40  # tokens
AROUND = 2000  # characters before and behind a part, in which a run may begin or end
LEAST_STYLE = 200  # characters that have a style
STRETCHES = 200  # of the book, with which a text is compared
LOW, HIGH = 10, 90  # percent of them that are below and above what is usual
FILES = {"txt": ("utf-8", ".txt"), "bom": ("utf-8-sig", ".txt"), "gb18030": ("gb18030", ".txt")}
# sliders of the page; what the options mean and their defaults are in novelgpt/cli/options.py
SLIDERS = {
    "temperature": (0.0, 2.0, 0.05), "topk": (0, 100, 1), "topp": (0.0, 1.0, 0.01), "min_p": (0.0, 0.5, 0.01),
    "typical": (0.0, 1.0, 0.01), "dry_multiplier": (0.0, 2.0, 0.05), "repetition_penalty": (1.0, 2.0, 0.01),
    "penalty_window": (0, 1024, 16), "no_repeat_ngram_size": (0, 20, 1),
}  # fmt: skip
PAGE = """<!doctype html>
<html lang="zh-CN"><meta charset="utf-8"><title>{title}</title>
<style>body{{max-width:42em;margin:2em auto;line-height:1.9}}p{{text-indent:2em;margin:0}}</style>
<h1>{title}</h1>
{paragraphs}
</html>
"""


class Panels:
    """The book of a model, asked by the page.

    Args:
        model_path: folder of the model; its manifest names the book.
        corpus: another place of the book; None: where it was in training.
    """

    def __init__(self, model_path: str, corpus: str | None = None):
        self.model_path, self.corpus = model_path, corpus
        # several pages may ask at the same time, and the index takes a minute of work once
        self.lock = threading.Lock()

    @cached_property
    def found(self) -> Book | None:
        """The book, None where it is not at hand."""
        return find_book(self.model_path, self.corpus)

    def find(self) -> Book | None:
        """Return the book, read once whoever asks for it; None where it is not at hand."""
        with self.lock:
            return self.found

    @property
    def book(self) -> Book:
        """The book; UserError where it is not at hand."""
        if book := self.find():
            return book
        message = f"the book of {self.model_path} is not at hand"
        raise UserError(message, hint_at_book(self.model_path), EXIT_INPUT)

    @cached_property
    def _usual(self) -> dict[str, tuple[float, float, float]]:
        # as long as a chapter of today, at even distances
        texts = [text[start : start + 3000] for text in self.found.documents for start in range(0, len(text), 3000)]
        texts = [text for text in texts if len(text) >= LEAST_STYLE] or self.found.documents
        texts = texts[:: max(1, len(texts) // STRETCHES)]
        rows, whole = [measure_style([text]) for text in texts], measure_style(texts)
        return {
            name: (whole[name], *(float(np.percentile([row[name] for row in rows], share)) for share in (LOW, HIGH)))
            for name in LABELS
        }

    def copies(self, text: str, start: int, end: int, least: int = LONG_RUN) -> list[dict]:
        """Return the passages of a text that stand in the book, none within another one.

        Args:
            text: the whole text.
            start, end: where the passages are looked for; they may begin before and end behind.
            least: characters of a passage.

        Returns:
            For each its start and end in the text; chapter, title and place in the book.
        """
        meter, first = self.book.meter, max(0, start - AROUND)
        codes = utf32_codes(text[first : end + AROUND])
        if not len(codes):
            return []
        lengths, places = meter.match_lengths(codes)
        ends = np.arange(len(codes)) + lengths
        is_new = np.append(True, ends[1:] > ends[:-1])  # not the rest of the one before it
        found = []
        for place in np.flatnonzero((lengths >= least) & is_new).tolist():
            run = {"start": first + place, "end": first + int(ends[place])}
            if run["start"] < end and run["end"] > start:
                chapter = int(np.searchsorted(meter.starts, places[place], side="right")) - 1
                where = {"chapter": chapter, "title": meter.headings[chapter]}
                found.append({**run, **where, "place": int(places[place] - meter.starts[chapter])})
        return found

    def style(self, text: str) -> dict:
        """Return figures of a text beside the book's, and what is furthest from it in words."""
        if len(text) < LEAST_STYLE:
            return {"figures": [], "advice": word(f"{LEAST_STYLE} characters or more have a style, here {len(text)}")}
        _ = self.book
        with self.lock:
            usual = self._usual
        written = measure_style([text])
        figures, furthest, most = [], word("every figure is as it is in the book"), 0.0
        for name, label in LABELS.items():
            book, low, high = usual[name]
            figures.append({"name": word(label), "text": written[name], "book": book, "low": low, "high": high})
            distance = max(low - written[name], written[name] - high) / ((high - low) or 1.0)
            if distance > most:
                is_less, most = written[name] < low, distance
                furthest = word(f"less than in the book: {label}" if is_less else f"more than in the book: {label}")
        return {"figures": figures, "advice": furthest}

    def doctor(self, text: str) -> list[dict]:
        """Return what the book never writes: characters, and names that look misspelt, each with what is nearest."""
        book, found = self.book, []
        for what, nearest in book.misspelt_names(text):
            found += [{**run, "what": "name", "nearest": nearest} for run in places_of(what, text)]
        taken = {place for run in found for place in range(run["start"], run["end"])}
        for char in unseen_characters(text, book.documents):
            runs = [run for run in places_of(char, text) if run["start"] not in taken]
            found += [{**run, "what": "character", "nearest": None} for run in runs]
        return sorted(found, key=lambda run: run["start"])

    def openings(self, words: str) -> list[dict]:
        """Return openings of the book that hold some words, each with where it stands."""
        book = self.book
        if not words.strip():
            raise UserError("text: empty, expected words of the book", "for example a name", EXIT_USAGE)
        found = []
        for text in book.find_openings(words.strip(), OPENINGS):
            where = ((number, document.find(text)) for number, document in enumerate(book.documents))
            chapter, place = next((pair for pair in where if pair[1] >= 0), (0, 0))
            found.append({"text": text, "chapter": chapter, "place": place})
        return found

    def chapter(self, number: int) -> dict:
        """Return a chapter of the book, from 0."""
        documents = self.book.documents
        if not 0 <= number < len(documents):
            raise UserError(f"chapter {number}, expected 0 to {len(documents) - 1}", "count from 0", EXIT_USAGE)
        title = documents[number].strip().partition("\n")[0][:40]
        return {"title": title, "text": documents[number], "chapters": len(documents)}


def word(text: str) -> dict[str, str]:
    """Return a text for both languages of the page."""
    return {"en": text, "zh": to_chinese(text)}


def places_of(words: str, text: str) -> list[dict]:
    """Return where some words stand in a text.

    >>> places_of("月", "月色，月")
    [{'start': 0, 'end': 1}, {'start': 3, 'end': 4}]
    """
    found, start = [], text.find(words)
    while start >= 0:
        found.append({"start": start, "end": start + len(words)})
        start = text.find(words, start + len(words))
    return found


def chapters_of(text: str) -> list[dict]:
    r"""Return the headings of a text and where they begin.

    >>> chapters_of("第一章 井\n风。\n第二章 剑\n")
    [{'title': '第一章 井', 'start': 0}, {'title': '第二章 剑', 'start': 9}]
    """
    found, start = [], 0
    for line in text.split("\n"):
        if (heading := line.strip()) and read_heading(heading):
            found.append({"title": heading, "start": start})
        start += len(line) + 1
    return found


def ask_for_titles(chapter: str, settings: Mapping) -> Request:
    """Return the request for titles of a chapter; a heading in its first line would tell one, and is left out.

    >>> ask_for_titles("第一章 井\\n夜里", {}).prompt
    '夜里'
    """
    from novelgpt.corpus.records import TITLE_MARK  # with much that the first page does without

    heading, _, rest = chapter.lstrip().partition("\n")
    prompt = rest if read_heading(heading.strip()) else chapter
    return Request(prompt, LONGEST_TITLE, candidates=TITLES, settings=settings, mark=TITLE_MARK)


def read_upload(data: object) -> tuple[str, str]:
    """Return the text and the encoding of a file that came as base64.

    Raises:
        UserError: no base64, or no text that can be read, see decode_bytes.
    """
    try:
        content = base64.b64decode(data, validate=True)
    except (ValueError, TypeError) as problem:
        raise UserError("data: not base64", "send the bytes of the file as base64", EXIT_USAGE) from problem
    decoded = decode_bytes(content, name="the file")
    return decoded.text.replace("\r\n", "\n").replace("\r", "\n"), decoded.encoding


def export_story(shown: Mapping, form: str) -> tuple[bytes, str, str]:
    """Return a story as a file: its bytes, media type and ending.

    Args:
        shown: Story.view().
        form: txt, bom (UTF-8 with a byte order mark), gb18030, html or json (the whole tree).

    >>> export_story({"name": "井边", "text": "夜里"}, "gb18030")
    (b'\\xd2\\xb9\\xc0\\xef', 'text/plain; charset=gb18030', '.txt')
    """
    if form in FILES:
        encoding, ending = FILES[form]
        return shown["text"].encode(encoding), f"text/plain; charset={encoding.removesuffix('-sig')}", ending
    if form == "html":
        lines = [html.escape(line) for line in shown["text"].split("\n") if line.strip()]
        paragraphs = "\n".join(f"<p>{line}</p>" for line in lines)
        page = PAGE.format(title=html.escape(shown["name"]), paragraphs=paragraphs)
        return page.encode("utf-8"), "text/html; charset=utf-8", ".html"
    if form == "json":
        text = json.dumps(dict(shown), ensure_ascii=False, indent=1)
        return text.encode("utf-8"), "application/json", ".json"
    raise UserError(f"format {form!r:.20}, expected txt, bom, gb18030, html or json", "format=txt", EXIT_USAGE)


def read_settings(body: Mapping) -> dict:
    """Return how tokens are chosen: the values of a preset, and what is given itself."""
    given = body.get("settings") or {}
    preset = given.get("preset", PRESET) if isinstance(given, dict) else None
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UserError(
            f"preset: found {preset!r:.40}, expected {', '.join(PRESETS)}", '"preset": "balanced"', EXIT_USAGE
        )
    return PRESETS[preset] | {name: value for name, value in given.items() if name != "preset"}


def describe_settings() -> list[dict]:
    """Return the sliders of the page: what options.py has, with a range that a slider can have."""
    names = names_with(GenerateOptions, sampling=True)
    found = []
    for name, (low, high, step) in SLIDERS.items():
        if name in names:
            entry = GenerateOptions.__dataclass_fields__[name]
            default = entry.default if entry.default is not None else PRESETS[PRESET].get(name)
            kind = type(step).__name__
            facts = {"name": name, "default": default, "low": low, "high": high, "step": step, "kind": kind}
            found.append({**facts, "help": word(entry.metadata["help"])})
    return found
