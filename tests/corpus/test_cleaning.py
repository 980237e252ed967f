"""Text as found -> clean lines with a receipt."""

import itertools
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novelgpt.corpus.cleaning import clean_text
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_USAGE, UserError

LINE_ENDS = "\r\n\x0b\x0c\x85\u2028\u2029"
BLANKS = "\t\xa0\u2007\u202f"
DIRTY = st.text(
    alphabet=st.one_of(
        st.sampled_from("萧炎，。 　\t\r\n&;#x amplt\u200b\ufeff\ue777\ufffd\ud83d\ude00\x00\x85\u2028Ａ１"),
        st.characters(),
    ),
    max_size=60,
)


FAST = [*range(0x10000), *range(0x10000, 0x110000, 61)]


@pytest.mark.parametrize("codes", [FAST, pytest.param(range(0x110000), marks=pytest.mark.sweep)], ids=["fast", "all"])
def test_every_code_point_between_two_characters_is_treated_as_the_definition_says(codes):
    expected, removed = [], {}
    for code in codes:
        char = chr(code)
        if char in LINE_ENDS or char == "\n":
            expected += ["萧", "炎"]
        elif char in BLANKS:
            expected.append("萧 炎")
        elif char == "\ufffd" or unicodedata.category(char)[0] == "C":
            expected.append("萧〓炎" if char == "\ufffd" or unicodedata.category(char) == "Co" else "萧炎")
            removed[f"U+{code:04X}"] = 1
        else:
            expected.append(f"萧{char}炎")
    cleaned = clean_text("\n".join(f"萧{chr(code)}炎" for code in codes))
    assert cleaned.text.split("\n") == expected
    assert cleaned.code_points == removed
    assert cleaned.counts["lone surrogates"] == 2048
    planes = [code for code in codes if code >= 0xF0000 and code & 0xFFFF < 0xFFFE]  # 15 and 16, for private use
    assert cleaned.counts["private-use characters"] == 6400 + len(planes)


def test_private_use_characters_stay_when_asked():
    assert clean_text("萧\ue777炎", keep_private=True).text == "萧\ue777炎"


@pytest.mark.parametrize(
    ("text", "expected", "marked"),
    [
        ("手\ue777擒\ue778\ue779。", "手〓擒〓〓。", 3),  # one for each, beside a letter on either side
        ("，\ue777来", "，〓来", 1),
        ("他\ufffd\ufffd走了", "他〓走了", 1),  # the bytes of one character leave several U+FFFD
        ("。\ue777\n\ue778\ue779\n来", "。\n来", 0),  # ornaments, beside no letter
    ],
)
def test_a_character_lost_inside_a_word_leaves_a_mark(text, expected, marked):
    cleaned = clean_text(text)
    assert (cleaned.text, cleaned.counts["characters lost inside words, marked 〓"]) == (expected, marked)


@given(DIRTY, st.sampled_from([None, "half", "full"]), st.booleans())
def test_cleaning_twice_changes_nothing_more(text, width, keep_private):
    once = clean_text(text, width=width, keep_private=keep_private)
    again = clean_text(once.text, width=width, keep_private=keep_private)
    assert again.text == once.text
    assert not again.counts


@given(DIRTY)
def test_clean_text_can_be_written_as_utf_8_without_blank_lines(text):
    cleaned = clean_text(text).text
    cleaned.encode("utf-8")
    assert all(line == line.strip() and line for line in cleaned.split("\n")) or cleaned == ""


@pytest.mark.parametrize("ends", list(itertools.product(["\n", "\r\n", "\r"], repeat=5)))
def test_every_mixture_of_line_ends_gives_the_same_six_lines(ends):
    text = "".join(line + end for line, end in zip("一二三四五六", [*ends, ""], strict=True))
    joined = "\n".join("一二三四五六")
    cleaned = clean_text(text)
    assert cleaned.text == joined
    assert cleaned.counts["CR LF line ends"] == ends.count("\r\n")
    assert cleaned.counts["lone CR line ends"] == ends.count("\r")


@pytest.mark.parametrize("char", ["\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_rarer_line_ends_become_newlines(char):
    assert clean_text(f"萧{char}炎").text == "萧\n炎"


@pytest.mark.parametrize("char", ["\t", "\xa0", "\u2007", "\u202f"])
def test_tabs_and_no_break_spaces_become_spaces(char):
    assert clean_text(f"萧{char}炎").text == "萧 炎"


@pytest.mark.parametrize("char", [*"\xad\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\U000e0041"])
def test_zero_width_and_direction_marks_go(char):
    cleaned = clean_text(f"萧{char}炎")
    assert cleaned.text == "萧炎"
    assert cleaned.counts == {"zero-width and direction marks": 1}
    assert cleaned.code_points == {f"U+{ord(char):04X}": 1}


@pytest.mark.parametrize("code", range(0xD800, 0xE000, 17))
def test_a_lone_surrogate_goes(code):
    assert clean_text(f"萧{chr(code)}炎").text == "萧炎"


def test_a_surrogate_pair_is_joined():
    assert clean_text("萧\ud83d\ude00炎\ud840\udc0b").text == "萧\U0001f600炎\U0002000b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("&quot;来&quot;", '"来"'),
        ("&ldquo;来&rdquo;&hellip;", "“来”…"),
        ("&#33831;&#x708E;", "萧炎"),
        ("don&#o39;t", "don't"),  # as found in a pirated copy
        ("&amp;quot;", '"'),  # encoded twice
        ("萧&nbsp;&nbsp;炎", "萧 炎"),
        ("萧&#10;炎", "萧\n炎"),
        ("A&B; &nosuch; AT&T", "A&B; &nosuch; AT&T"),
        ("&qu\u200bot;", '"'),
        ("&#xD800;&#1114112;", ""),  # no such characters: U+FFFD, which goes
    ],
)
def test_html_entities_are_decoded(text, expected):
    assert clean_text(text).text == expected


def test_indents_trailing_blanks_and_gaps_are_closed_and_a_single_blank_stays():
    cleaned = clean_text("　　萧炎　大喝：    “来！” \n \t　\n\n    白发 渔樵\u3000")
    assert cleaned.text == "萧炎　大喝： “来！”\n白发 渔樵"
    assert cleaned.lines == ["萧炎　大喝： “来！”", "", "", "白发 渔樵"]
    assert cleaned.counts == {
        "tabs": 1,
        "indents": 2,
        "trailing blanks": 2,
        "lines of nothing but blanks": 1,
        "gaps of several blanks": 1,
    }


def test_story_characters_keep_their_width_and_script():
    text = "“ＡＢＣ１２３！？”，龍虎門．『臺灣』……——·・□①℃のЖ"
    assert clean_text(text).text == text


def test_width_is_changed_only_when_asked():
    assert clean_text("ＡＢ１２，！AB12,!", width="half").text == "AB12,!AB12,!"
    assert clean_text("ＡＢ１２，！AB12,!", width="full").text == "ＡＢ１２，！ＡＢ１２，！"


def test_examples_name_the_first_three_lines_of_each_class():
    text = "".join(f"第{number}行\x07有\n" for number in range(1, 6))
    cleaned = clean_text(text)
    assert cleaned.counts["control characters"] == 5
    assert cleaned.examples["control characters"] == [(1, "第1行\x07有"), (2, "第2行\x07有"), (3, "第3行\x07有")]


def test_an_unknown_width_is_refused():
    with pytest.raises(UserError) as caught:
        clean_text("萧炎", width="wide")
    assert str(caught.value) == "error: --width: found 'wide', expected half or full\n\nhint: --width half"
    assert caught.value.code == EXIT_USAGE


def test_opencc_is_named_with_its_command_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(UserError) as caught:
        clean_text("龍", traditional_to_simplified=True)
    expected = "error: --traditional_to_simplified: the package OpenCC is not installed\n\nhint: pip install OpenCC"
    assert str(caught.value) == expected
    assert caught.value.code == EXIT_ENVIRONMENT


def test_opencc_converts_the_script_when_it_is_there(monkeypatch):
    class OpenCC:
        def __init__(self, name):
            assert name == "t2s"

        def convert(self, text):
            return text.replace("龍", "龙")

    monkeypatch.setitem(sys.modules, "opencc", type(sys)("opencc"))
    sys.modules["opencc"].OpenCC = OpenCC
    cleaned = clean_text("龍虎", traditional_to_simplified=True)
    assert cleaned.text == "龙虎"
    assert cleaned.counts["characters simplified"] == 1


def test_the_receipt_names_what_was_removed_in_the_same_order_in_every_run():
    removed = list(clean_text("萧\ufffd\ue000\u200b\x07炎").examples)
    assert removed == [
        "control characters",
        "zero-width and direction marks",
        "private-use characters",
        "replacement characters U+FFFD",
    ]
