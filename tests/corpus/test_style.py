"""Copies of a book, found in a moment: the same as a search by hand."""

from hypothesis import given, settings
from hypothesis import strategies as st

from novelgpt.corpus.style import CopyIndex


def measure_by_hand(text: str, book: str) -> dict:
    """Try every run of two characters or more."""
    runs = [
        (first, last)
        for first in range(len(text))
        for last in range(first + 2, len(text) + 1)
        if text[first:last] in book
    ]
    covered = {place for first, last in runs if last - first >= 20 for place in range(first, last)}
    share = round(len(covered) / len(text), 4) if text else 0.0
    return {"longest": max((last - first for first, last in runs), default=0), "share_20": share}


@settings(max_examples=300, deadline=None)
@given(st.text("山水\n𠮷", max_size=120), st.text("山水\n𠮷", max_size=50))
def test_copies_are_what_a_search_by_hand_finds(book, text):
    assert CopyIndex(book).measure(text) == measure_by_hand(text, book)


def test_runs_of_twenty_count_and_shorter_ones_do_not():
    book = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))
    text = book[10:30] + "。" + book[50:69]  # 20 characters and 19
    assert CopyIndex(book).measure(text) == {"longest": 20, "share_20": 0.5}


def test_a_run_does_not_cross_from_one_document_into_the_next():
    assert CopyIndex("山水\n风月").measure("水风月") == {"longest": 2, "share_20": 0.0}
