"""What the book says of a text, against a search through every chapter."""

import random

import pytest

from novelgpt.studio.panels import Panels
from novelgpt.writing.book import Book


def copied_runs(text: str, documents: list[str], least: int) -> list[tuple[int, int]]:
    """Return the passages that some chapter has, none within another one, by looking for each in each."""
    longest = []
    for start in range(len(text)):
        ends = range(len(text), start, -1)
        longest.append(next((end for end in ends if any(text[start:end] in document for document in documents)), start))
    return [
        (start, end)
        for start, end in enumerate(longest)
        if end - start >= least and (start == 0 or end > longest[start - 1])
    ]


@pytest.mark.parametrize("seed", range(20))
def test_passages_that_stand_in_the_book_are_those_of_a_search_through_it(seed):
    noise = random.Random(seed)
    documents = ["".join(noise.choices("井水月剑", k=noise.randint(5, 60))) for _ in range(3)]
    panels = Panels("model", None)
    panels.found = Book(documents)
    for _ in range(50):
        text, least = "".join(noise.choices("井水月剑𠮷", k=noise.randint(0, 40))), noise.randint(2, 6)
        found = panels.copies(text, 0, len(text), least)
        assert [(run["start"], run["end"]) for run in found] == copied_runs(text, documents, least)
        for run in found:
            there = documents[run["chapter"]][run["place"] :]
            assert there.startswith(text[run["start"] : run["end"]])
