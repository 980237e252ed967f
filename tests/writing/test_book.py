"""What the book says about a prefix, and the figures of its style."""

import pytest
from conftest import needs_novels, read_novel

from novelgpt.corpus.style import find_odd_figures, measure_style, say_style, usual_ranges
from novelgpt.writing.book import Book, find_speakers

CHAPTER = "只见萧炎大喝一声，众人大笑。又见有人来了，萧炎走了。话说范进中了举人，家中欢喜。金莲听了，笑道：好。"
BOOK = Book(["第一章 风起\n" + CHAPTER * 30])


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("只见箫炎大喝一声", [("箫炎", "萧炎")]),
        ("萧焱大喝", [("萧焱", "萧炎")]),
        ("话说范进", []),
        ("范进笑道", []),  # in the book 中 always follows 进, but 笑道 is a word
        ("金莲大喝一声", []),
        ("萧炎听了", []),
        ("", []),
    ],
)
def test_only_a_name_that_is_misspelt_is_suspicious(prefix, found):
    assert BOOK.misspelt_names(prefix) == found


@needs_novels
@pytest.mark.parametrize(
    ("name", "prefix", "found"),
    [
        ("hongloumeng.gbk.txt", "宝王笑道", [("宝王", "宝玉")]),
        ("hongloumeng.gbk.txt", "话说宝玉听了黛玉的话", []),
        ("hongloumeng.gbk.txt", "那僧人道：石兄，你这一段故事", []),
        ("xiyouji.utf16le.txt", "唐憎道：悟空", [("唐憎", "唐僧")]),
        ("xiyouji.utf16le.txt", "话说孙悟空笑着大喝一声", []),
        ("sanguo.utf8.txt", "却说吕步大怒", [("吕步", "吕布")]),
        ("sanguo.utf8.txt", "刘备与关羽张飞饮酒", []),
    ],
)
def test_names_of_real_novels(name, prefix, found):
    assert Book([read_novel(name)]).misspelt_names(prefix) == found


def test_the_style_is_said_in_plain_words(capsys):
    text = "“走！”他说。\n她笑了……"
    say_style([text], None)
    assert capsys.readouterr().err == (
        "                                      written\n"
        "characters in a sentence                  2.7\n"  # “走, ”他说, 她笑了
        "characters in a paragraph                 6.0\n"  # 7 and 5
        "within quotation marks                    15%\n"  # 2 of 13 characters
        "paragraphs that close their quotes       100%\n"
        "…… in 1,000 characters                   76.9\n"  # 1 of 13
        "variety (100%: nothing repeated)         100%\n"
        "texts caught in a loop                     0%\n"
    )
    say_style([text], [text, text])  # too short to have pages
    assert capsys.readouterr().err.startswith("                                      written    the book\n")


def test_the_range_of_the_books_pages_stands_beside_each_figure_and_what_is_off_is_said(capsys):
    book = ["“走！”他说。她笑了笑，走了。\n" * 40]  # 16 characters each: 2 pages of 225
    say_style(["他走来走去走来走去走来走去走来走去走来走去走来走去走来走去走来走去走来走去走来走去。“好\n" * 5], book)
    assert capsys.readouterr().err.splitlines() == [
        "                                      written    the book    of its pages 90%",
        "characters in a sentence                 21.5         4.0           3.9 – 4.0",  # 41 and 2; 2, 3 and 7
        "characters in a paragraph                44.0        15.0         14.1 – 15.0",  # 14 of 15, and one of 1
        "within quotation marks                     0%         12%           12% – 12%",
        "paragraphs that close their quotes         0%        100%          93% – 100%",  # one page ends with “
        "…… in 1,000 characters                    0.0         0.0           0.0 – 0.0",
        "variety (100%: nothing repeated)           5%          3%             7% – 7%",  # 12 and 16 of 222 runs
        "texts caught in a loop                   100%        100%         100% – 100%",
        "sentences are longer than the book's: --preset steady",
        "there is less dialogue than in the book: --prefix with a speaker, such as 他说：“",
        "quotation marks are left open: --preset steady, or --stop paragraph",
        "runs of characters come again and again: --preset balanced, or --dry_multiplier 0.8",
    ]


def test_a_page_is_usual_within_the_middle_ninety_percent_of_the_pages():
    # 100 pages of 200 characters, the n-th with n sentences of one character at its beginning and one long one
    book = ["走。" * number + "走" * (200 - 2 * number) for number in range(1, 101)]
    ranges = usual_ranges(["".join(book)], 200)
    lengths = sorted(measure_style([page])["sentence_length"] for page in book)
    # 0.05 and 0.95 of 99 places; pages are joined without a break, so their ends agree
    assert ranges["sentence_length"] == (lengths[5], lengths[94])


def test_only_figures_outside_the_range_are_odd():
    ranges = {"distinct_4": (0.9, 1.0), "sentence_length": (10.0, 20.0)}
    assert find_odd_figures({"distinct_4": 0.9, "sentence_length": 20.0}, ranges) == []
    (words, flag), *_ = find_odd_figures({"distinct_4": 0.5, "sentence_length": 20.0}, ranges)
    assert words == "runs of characters come again and again" and "--dry_multiplier" in flag


def test_those_who_speak_are_found_by_how_they_do():
    text = "宝玉道：“好。”黛玉笑道：“不。”\n行者又问道：“是么？”玄德曰：“然。”他心里知道：“坏了。”众人都来了。"
    assert find_speakers(text)[:4] == ["宝玉", "黛玉", "行者", "玄德"]
    book = Book(["宝玉道：“好。”" * 5 + "黛玉道：“好。”" * 4])
    assert book.speakers == ["宝玉"]  # five times at least
