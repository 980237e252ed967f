"""What the book says about a prefix, and the figures of its style."""

import pytest
from conftest import needs_novels, read_novel

from novelgpt.corpus.style import measure_style, say_style
from novelgpt.writing.book import Book

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
    say_style(measure_style([text]), None)
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
    say_style(measure_style([text]), measure_style([text, text]))
    assert capsys.readouterr().err.startswith("                                      written    the book\n")
