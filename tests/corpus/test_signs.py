"""What is odd about the signs and paragraphs of a book."""

from collections import Counter

from novelgpt.corpus.signs import Examination, character_counts, known_characters

STORY = "他推开门，外面下着雪，山路上一个人也没有。"


def test_characters_are_counted_as_counter_does():
    text = "萧炎萧😀\nA㐀" * 7
    assert character_counts(text) == Counter(text)


def test_gb2312_has_6763_han_characters_and_a_vocabulary_is_read_line_by_line(tmp_path):
    name, known = known_characters(None)
    assert name == "GB2312"
    assert sum("\u4e00" <= char <= "\u9fff" for char in known) == 6763
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n<0x00>\n萧\n\u2028\n炎\n", encoding="utf-8")
    assert known_characters(vocabulary) == ("vocab.txt", {"萧", "\u2028", "炎"})


def test_an_examination_in_two_parts_says_the_same_as_in_one():
    lines = ["“萧Ж炎", STORY, STORY, "□の", ""]
    whole, parts = Examination(), Examination()
    whole.add([*lines, *lines, ""], ["“萧", "「」"], range(1, 12))
    parts.add([*lines, ""], ["“萧"], range(1, 7))
    parts.add([*lines, ""], ["「」"], range(1, 7))
    first, second = whole.facts(), parts.facts()
    first["repeated_passages"] = second["repeated_passages"] = None  # found within a part only
    assert first == second


def test_odd_and_lost_characters_come_with_count_and_first_line():
    examination = Examination()
    examination.add(["一", "他Ж走", "Ж镕"], ["“一"], [1, 2, 3])
    facts = examination.facts()
    assert facts["odd"]["shown"] == [
        {
            "character": "Ж",
            "code": "U+0416",
            "name": "CYRILLIC CAPITAL LETTER ZHE",
            "count": 2,
            "line": 2,
            "text": "他Ж走",
        }
    ]
    assert [(entry["character"], entry["line"]) for entry in facts["lost"]["shown"]] == [("镕", 3)]
    assert facts["quotes"]["unbalanced_documents"] == 1


def test_the_parts_of_a_broken_line_have_the_number_of_that_line():
    examination = Examination()
    examination.add(["一", "他Ж走", "の来", STORY, STORY], ["一"], [1, 2, 2, 2, 3])
    facts = examination.facts()
    assert [entry["line"] for entry in facts["odd"]["shown"]] == [2, 2]
    assert facts["repeated_passages"]["shown"][0]["line"] == 2
    examination.add(["", "Я"], ["Я"], [1, 2])  # continues in line 3
    assert [entry["line"] for entry in examination.facts()["odd"]["shown"]] == [2, 4, 2]
