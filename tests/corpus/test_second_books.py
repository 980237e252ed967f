"""Two books in one file are noticed; volumes and quoted titles are none."""

import pytest

from novelgpt.corpus.chapters import dividing_headings, find_headings
from novelgpt.corpus.second_books import find_second_books


def write_book(count, first=1):
    """Return the lines of a book."""
    chapters = range(first, first + count)
    return [line for number in chapters for line in (f"第{number}章 山路", "他推开门，外面下着雪。", "她没有回头。")]


def books_in(*parts):
    """Find the books in a file of several parts."""
    lines = [line for part in parts for line in part]
    return find_second_books(lines, dividing_headings(find_headings(lines)))


@pytest.mark.parametrize(
    "page",
    [
        ["《雪落青城》"],
        ["雪落青城", "作者：乔木"],
        ["书名：雪落青城", "", "作者:乔木"],
        ["《雪落青城》乔木 著", "", "内容简介：一个少年下山。"],
        ["雪落青城 / 乔木 著"],
    ],
)
def test_a_second_book_is_found_by_its_title_page(page):
    # 12 chapters of 3 lines; 雪落青城 alone tells nothing, the line of the author does
    line = 37 + (page[0] == "雪落青城")
    assert books_in(write_book(12), page, write_book(12)) == [line]
    assert books_in(write_book(12), page, ["楔子", "那年冬天。"], write_book(12)) == [line]


def test_three_books_are_two_seconds():
    page = ["《雪落青城》", "作者：乔木"]
    assert books_in(write_book(10), page, write_book(11), page, write_book(10)) == [31, 66]


@pytest.mark.parametrize(
    "parts",
    [
        (write_book(12), write_book(12)),  # a new volume without a word
        (write_book(12), ["第二卷 风起"], write_book(12)),
        (write_book(12), ["《雪落青城》", "第二卷 风起"], write_book(12)),
        (write_book(9), ["《雪落青城》"], write_book(12)),  # too few chapters for a book
        (write_book(12), ["《雪落青城》"], write_book(12, first=13)),  # the book goes on
        (["《雪落青城》", "作者：乔木"], write_book(12)),  # the first book's own title page
        (write_book(12), ["他翻开一本旧书，书名叫做《雪落青城》，写的是一个少年下山的故事。"], write_book(12)),
        (write_book(12), ["《雪落青城》"], write_book(1, first=13), write_book(12)),  # a title inside a chapter before
    ],
)
def test_what_is_no_second_book_is_not_said_to_be_one(parts):
    assert books_in(*parts) == []
