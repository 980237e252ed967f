"""A reader's own expressions: for headings and for lines to leave out, within a limit of time."""

import signal

import pytest

from novelgpt.corpus import patterns
from novelgpt.corpus.books import CleanBook, CleaningOptions
from novelgpt.messages import UserError

STORY = "他推开门，外面下着雪，山路上一个人也没有。"
BOOK = "\n".join(f"<{name}>\n{STORY}{name}" for name in ("山村 1", "雨夜 2", "归来 3"))


def clean(text: str, **options) -> CleanBook:
    book = CleanBook("novel.txt", CleaningOptions(**options))
    book.chapters = book.prepare([text], single=True)
    return book


def test_the_readers_expression_decides_what_is_a_heading():
    book = clean(BOOK + "\n第一章 假的\n她来了。", chapters="^<.+>$", keep_ads=True)
    assert [heading.text for heading in book.chapters.found] == ["<山村 1>", "<雨夜 2>", "<归来 3>"]
    assert [heading.number for heading in book.chapters.found] == [1, 2, 3]
    assert book.chapters.documents[2] == f"<归来 3>\n{STORY}归来 3\n第一章 假的\n她来了。"


def test_no_chapters_gives_parts_of_even_length_at_paragraph_ends():
    chapters = "\n".join(f"第{number}章 山\n" + "\n".join([f"{number}{STORY}"] * 200) for number in range(1, 6))
    spaced = clean(chapters.replace("\n第", "\n\n\n第"), chapters="none")  # blank lines part chapters, but not here
    assert spaced.chapters.how == "no chapter headings: split into 7 even parts"
    book = clean(chapters, chapters="none")
    assert book.chapters.found == []
    assert book.chapters.how == "no chapter headings: split into 7 even parts"  # 22,000 characters
    assert "\n".join(book.chapters.documents) == chapters


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
@pytest.mark.parametrize("option", [{"chapters": "(a+)+$"}, {"drop": ("/(a+)+$/",)}])
def test_an_expression_that_never_ends_is_stopped_with_its_name(monkeypatch, option):
    monkeypatch.setattr(patterns, "MAX_SECONDS", 0.2)
    with pytest.raises(UserError) as caught:
        clean("a" * 60 + "b", **option)
    assert caught.value.message == "/(a+)+$/: not done with one book after 0.2 seconds"
    assert caught.value.hint == "a simpler expression, without a repetition inside a repetition"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
