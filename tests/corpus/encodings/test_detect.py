"""Bytes to text: every encoding, damage, pasted chapters, and what is refused."""

import random
import re

import pytest

from novelgpt.corpus.documents import stream_text
from novelgpt.corpus.encodings import TextStream, decode_bytes
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError

SIMPLIFIED = (
    "第三章 雨夜来客\n"
    "　　山门外的石阶被雨水洗得发亮，守夜的少年提着灯笼，听见有人在敲门。\n"
    "　　“谁？”他问了一声，没有人回答，只有风从松林里吹过来……\n"
    "　　过了半晌，门外的人才低声说道：“我从南边来，走了三天三夜，想讨一碗热水喝。”\n"
    "　　少年想了想，把门开了一条缝，看见一个背着长剑的老人，白发上全是水。\n"
)
TRADITIONAL = (
    "第三章 雨夜來客\n"
    "　　山門外的石階被雨水洗得發亮，守夜的少年提著燈籠，聽見有人在敲門。\n"
    "　　「誰？」他問了一聲，沒有人回答，只有風從松林裡吹過來……\n"
    "　　過了半晌，門外的人才低聲說道：「我從南邊來，走了三天三夜，想討一碗熱水喝。」\n"
    "　　少年想了想，把門開了一條縫，看見一個背著長劍的老人，白髮上全是水。\n"
)


@pytest.mark.parametrize(
    ("text", "encoding", "reported"),
    [
        (SIMPLIFIED, "utf-8", "utf-8"),
        (SIMPLIFIED, "utf-8-sig", "utf-8-sig"),
        (SIMPLIFIED, "gbk", "gb18030"),
        (SIMPLIFIED, "gb18030", "gb18030"),
        (TRADITIONAL, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (TRADITIONAL, "cp950", "big5"),
        (TRADITIONAL, "big5hkscs", "big5"),
        (SIMPLIFIED, "utf-16", "utf-16-le"),
        (TRADITIONAL, "utf-16-le", "utf-16-le"),
        (SIMPLIFIED, "utf-16-be", "utf-16-be"),
        (SIMPLIFIED, "utf-32", "utf-32-le"),
        (TRADITIONAL, "utf-32-be", "utf-32-be"),
        ("Chapter 1\nIt rained.\n", "ascii", "utf-8"),
    ],
)
def test_every_encoding_is_found_and_read(text, encoding, reported):
    decoded = decode_bytes(text.encode(encoding))
    assert (decoded.text, decoded.encoding, decoded.bad_bytes) == (text, reported, 0)


def test_big_endian_marks_are_dropped():
    for codec, mark in (("utf-16-be", b"\xfe\xff"), ("utf-32-be", b"\x00\x00\xfe\xff")):
        decoded = decode_bytes(mark + SIMPLIFIED.encode(codec))
        assert (decoded.text, decoded.encoding) == (SIMPLIFIED, codec)


def test_user_defined_codes_of_gbk_are_kept():
    data = SIMPLIFIED.encode("gb18030") + b"\xaa\xa1\xaf\xfe\n"
    assert decode_bytes(data).text == SIMPLIFIED + "\ue000\ue233\n"


def test_a_hong_kong_character_makes_the_file_hkscs_and_keeps_windows_symbols():
    # 嘅 is in HKSCS only; A145 is the middle dot that Python's big5hkscs calls a bullet.
    data = TRADITIONAL.encode("big5hkscs") + "嘅".encode("big5hkscs") + b"\xa1\x45"
    assert decode_bytes(data).text == TRADITIONAL + "嘅‧"


def test_a_cut_last_character_is_dropped_and_counted():
    for text, encoding in (
        (SIMPLIFIED, "utf-8"),
        (SIMPLIFIED, "gb18030"),
        (TRADITIONAL, "big5"),
        (TRADITIONAL, "utf-16-le"),
    ):
        text = text.rstrip()
        decoded = decode_bytes(text.encode(encoding)[:-1])
        size = len(text[-1].encode(encoding))
        assert (decoded.text, decoded.bad_bytes) == (text[:-1], size - 1)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16-le"])
def test_a_file_cut_at_any_byte_reads_up_to_there(encoding):
    data = SIMPLIFIED.encode(encoding)
    for size in range(60, len(data)):
        decoded = decode_bytes(data[:size])
        assert SIMPLIFIED.startswith(decoded.text)
        assert len(SIMPLIFIED[: len(decoded.text) + 1].encode(encoding)) > size


def test_one_bad_byte_costs_no_more_than_its_neighbourhood():
    rng = random.Random(8)
    for text, encoding in ((SIMPLIFIED, "utf-8"), (SIMPLIFIED, "gb18030"), (TRADITIONAL, "big5")):
        data = text.encode(encoding)
        for _ in range(100):
            place = rng.randrange(len(data))
            decoded = decode_bytes(data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :])
            before = len(data[:place].decode(encoding, "ignore"))
            assert decoded.text.startswith(text[: max(0, before - 6)])
            assert decoded.text.endswith(text[before + 8 :])


def test_a_lost_byte_does_not_shift_the_rest_of_the_line():
    data = SIMPLIFIED.encode("gb18030")
    place = data.index("守夜".encode("gb18030"))
    decoded = decode_bytes(data[:place] + data[place + 1 :])
    assert (decoded.text, decoded.bad_bytes, decoded.bad_offsets) == (SIMPLIFIED.replace("守", "", 1), 1, (place,))


def test_bad_offsets_are_places_in_the_file():
    data = SIMPLIFIED.encode()
    place = data.index("少".encode())
    decoded = decode_bytes(data[:place] + b"\xff" + data[place:])
    assert (decoded.text, decoded.bad_offsets) == (SIMPLIFIED, (place,))


def test_lone_surrogates_of_utf_16_are_dropped_and_counted():
    data = SIMPLIFIED.encode("utf-16-le")
    decoded = decode_bytes(b"\xff\xfe" + data[:40] + b"\x00\xd8" + data[40:])
    assert (decoded.text, decoded.bad_bytes, decoded.bad_offsets) == (SIMPLIFIED, 2, (42, 43))


@pytest.mark.parametrize(("encoding", "size"), [("utf-16-le", 2), ("utf-16-be", 2), ("utf-32-le", 4)])
@pytest.mark.parametrize("lost", [1, -1])
def test_utf_16_and_32_are_read_on_behind_a_byte_lost_or_one_too_many(encoding, size, lost):
    text = SIMPLIFIED * 60
    place = 3000  # characters; 山 stands there
    data, cut = text.encode(encoding), place * size
    data = data[:cut] + data[cut + 1 :] if lost == 1 else data[:cut] + b"\x07" + data[cut:]
    decoded = decode_bytes(data)
    assert (decoded.encoding, decoded.bad_bytes) == (encoding, (size - lost) % size or size - 1)
    assert decoded.text == text[:place] + text[place + 1 :] if lost == 1 else text


def test_a_stream_of_utf_16_is_read_on_behind_a_lost_byte():
    text = SIMPLIFIED * 4000
    data = text.encode("utf-16")
    data = data[:900_000] + data[900_001:]
    stream = TextStream((data[start : start + 300_000] for start in range(0, len(data), 300_000)), "a.txt")
    place = (900_000 - 2) // 2  # behind the mark
    assert "".join(stream) == text[:place] + text[place + 1 :]
    assert (stream.decoded.encoding, stream.bad_bytes) == ("utf-16-le", 1)


def test_a_mark_pasted_before_another_encoding_is_dropped():
    decoded = decode_bytes(b"\xef\xbb\xbf" + SIMPLIFIED.encode("gbk"))
    assert (decoded.text, decoded.encoding, decoded.bad_bytes) == (SIMPLIFIED, "gb18030", 0)


def test_a_codec_that_does_not_fit_at_all_is_refused():
    with pytest.raises(UserError) as caught:
        decode_bytes(SIMPLIFIED.encode("gbk"), "idna")
    assert str(caught.value) == (
        "error: --encoding idna: the bytes do not fit it at all\n\nhint: leave out --encoding to have it detected"
    )


def test_chapters_of_three_encodings_in_one_file_are_told_apart():
    data = SIMPLIFIED.encode("gb18030") + TRADITIONAL.encode("big5") + SIMPLIFIED.encode("utf-8")
    decoded = decode_bytes(data)
    assert decoded.text == SIMPLIFIED + TRADITIONAL + SIMPLIFIED
    assert (decoded.encoding, decoded.bad_bytes) == ("mixed", 0)
    assert decoded.segments == ((1, 5, "gb18030"), (6, 10, "big5"), (11, 15, "utf-8"))
    assert decoded.reason == "its lines are in Big5 and GB18030 and UTF-8"


def test_a_line_that_changes_its_encoding_is_read_in_both_and_counted():
    first, second = SIMPLIFIED.rstrip(), TRADITIONAL.replace("\n", "")
    decoded = decode_bytes(first.encode("gb18030") + second.encode("big5") + b"\n")
    assert (decoded.text, decoded.torn_lines, decoded.bad_bytes) == (first + second + "\n", (5,), 0)


@pytest.mark.parametrize("others", ["gb18030", "utf-8"])
def test_one_line_that_changes_its_encoding_is_named(others):
    book, line, other = TRADITIONAL * 40, TRADITIONAL.split("\n")[3], SIMPLIFIED.split("\n")[3].strip()
    torn = line.encode("big5") + other.encode(others) + line.encode("big5")
    decoded = decode_bytes(book.encode("big5") + torn + b"\n" + book.encode("big5"))
    assert decoded.text == f"{book}{line}{other}{line}\n{book}"
    assert (decoded.encoding, decoded.torn_lines) == ("big5", (book.count("\n") + 1,))


def test_a_book_in_one_line_that_changes_its_encoding_is_read():
    book, other = TRADITIONAL.replace("\n", "") * 60, SIMPLIFIED.split("\n")[3].strip()
    decoded = decode_bytes(book.encode("big5") + other.encode("gb18030") + book.encode("big5"))
    assert (decoded.text, decoded.torn_lines) == (book + other + book, (1,))


def test_a_garbled_paragraph_costs_the_book_nothing_else_and_is_named():
    rng = random.Random(3)
    noise = bytes(rng.choice([*range(0x81, 0xA1), *range(0xFA, 0xFF)]) for _ in range(120))
    book = TRADITIONAL * 5  # the paragraph is more than a hundredth of it
    decoded = decode_bytes(book.encode("big5") + noise + b"\n" + book.encode("big5"))
    assert decoded.text.startswith(book) and decoded.text.endswith("\n" + book)
    assert (decoded.encoding, decoded.torn_lines) == ("big5", (book.count("\n") + 1,))
    assert decoded.bad_bytes > 0 and "\ufffd" in decoded.text


@pytest.mark.parametrize(
    "line",
    [
        "信上写着：“Вчера я вернулся из Москвы и сразу же написал ему.”他看了很久。",
        "书名是 ΜΕΤΑΦΥΣΙΚΑ，意为 τα μετα τα φυσικα，在物学之后。",
        "〓〓〓〓※〓〓〓〓※〓〓〓〓\ue004",
        "○○○○○○○○○○○○○○○○○○○○○○○○○○○○○○昌○○○○○○○○○○○○○○○○○○○",
        "“…”——‘…’〕〕〕〕〕〕◆◆◆◇◇★☆★",
    ],
)
@pytest.mark.parametrize("encoding", ["gb18030", "big5hkscs"])
def test_foreign_words_and_signs_stay_what_they_are(line, encoding):
    book = (SIMPLIFIED if encoding == "gb18030" else TRADITIONAL) * 300
    line = (
        line
        if encoding == "gb18030"
        else line.replace("信上写着", "信上寫著").replace("了很", "了").replace("书", "書")
    )
    try:
        data = (book + line + "\n" + book).encode(encoding)
    except UnicodeEncodeError:
        pytest.skip(f"{encoding} has no such sign")
    decoded = decode_bytes(data)
    assert (decoded.text, decoded.bad_bytes, decoded.torn_lines) == (book + line + "\n" + book, 0, ())


def test_greek_beside_a_lost_byte_stays_greek():
    line = "这部书叫作“τα μετα τα φυσικα”，意思是“在物学之后”，编者如此称呼它，后人也就照样称呼它了。"
    data = f"{line}\n{SIMPLIFIED}".encode("gb18030")
    place = data.index("编者".encode("gb18030"))
    assert decode_bytes(data[:place] + data[place + 1 :]).text == line.replace("编", "") + "\n" + SIMPLIFIED


def test_an_english_book_with_a_few_chinese_words_is_in_one_encoding():
    page = "“I don’t know,” he said… “Let’s go—it’s late.” She – she didn’t answer.\nNo one – no one – did.\n" * 8
    text = "哈利的故事，英文本，由他们的朋友录入。\n" + page * 200
    decoded = decode_bytes(text.encode("gb18030"))
    assert (decoded.text, decoded.encoding, decoded.segments) == (text, "gb18030", ())


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-8"])
def test_an_english_book_with_a_few_dashes_is_read(encoding):
    page = "It was late. She went home, and he stayed where he was.\n" * 40
    text = (page + "She was tired — and so was he… “Late,” he said.\n") * 30
    decoded = decode_bytes(text.encode(encoding))
    assert (decoded.text, decoded.encoding, decoded.bad_bytes) == (text, encoding, 0)


def test_one_strange_byte_does_not_cost_an_english_book():
    page = "It was late. She went home, and he stayed where he was.\n" * 400
    decoded = decode_bytes(page.encode() + b"\xb7 * *\n" + page.encode())
    assert decoded.text.startswith(page) and decoded.text.endswith(" * *\n" + page)
    assert decoded.reason == "plain ASCII but for 0.00%, likeliest as Windows-1252"


def test_big5_is_read_with_the_characters_of_hong_kong_wherever_they_stand():
    # the places that are compared first hold none of them: 雙鐧 and 一睃 are in HKSCS only, as are parts of characters
    book = TRADITIONAL * 400
    text = book + "他使一對雙鐧，成阝國公一睃。\n" + TRADITIONAL
    assert decode_bytes(text.encode("big5hkscs")).text == text


@pytest.mark.parametrize(
    ("encoding", "forced"),
    [("gb18030", "big5"), ("big5", "gbk"), ("utf-8", "gb18030"), ("gb18030", "utf-8"), ("utf-16-le", "gb18030")],
)
def test_an_encoding_that_reads_nonsense_in_chinese_text_is_refused_with_the_right_one(encoding, forced):
    text = SIMPLIFIED if encoding != "big5" else TRADITIONAL
    data = text.encode(encoding)
    with pytest.raises(UserError) as caught:
        decode_bytes(data, forced, name="novel.txt")
    begins = text[:20].strip().partition("\n")[0]
    assert caught.value.code == EXIT_INPUT
    assert caught.value.message.startswith(f"novel.txt: --encoding {forced} reads 「")
    assert f"」, {encoding} reads 「{begins}" in caught.value.message
    assert re.search(r"」, [\d,]+ times as likely for each character$", caught.value.message)
    assert caught.value.hint == f"--encoding {encoding}, or --encoding {forced} --force_encoding"
    with pytest.raises(UserError, match=f"novel.txt: --encoding {forced} reads 「"):
        list(TextStream(iter([data]), "novel.txt", forced))
    decoded = decode_bytes(data, forced, force=True)
    assert decoded.encoding == forced and decoded.text != text
    assert "".join(TextStream(iter([data]), "novel.txt", forced, force=True)) == decoded.text


def test_too_short_a_text_is_refused_with_both_readings():
    with pytest.raises(UserError) as caught:
        decode_bytes("你好".encode("gbk"), name="short.txt")
    assert caught.value.code == EXIT_INPUT
    assert str(caught.value) == (
        "error: short.txt: encoding undecided: gb18030 reads 「你好」, big5 reads 「斕疑」\n\n"
        "hint: --encoding gb18030 or --encoding big5"
    )


def test_bytes_valid_in_utf_8_by_chance_are_not_taken_for_it():
    # GBK 联通 is also two valid characters of UTF-8.
    with pytest.raises(UserError, match="encoding undecided: gb18030 reads 「联通」"):
        decode_bytes("联通".encode("gbk"))


@pytest.mark.parametrize(
    ("head", "kind", "hint"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "a zip archive", "unzip a -d a"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF file", "pdftotext -layout a a.txt"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "an old Office file (doc, xls) or one with a password",
            "soffice --headless --convert-to txt:Text a",
        ),
        (
            "水浒传".encode().ljust(60, b"\0") + b"BOOKMOBI",
            "a Kindle book (mobi, azw3)",
            "ebook-convert a a.txt  # from Calibre",
        ),
        (b"Rar!\x1a\x07\x01\0", "a rar archive", "unrar x a"),
        (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive", "7z x a"),
    ],
)
@pytest.mark.parametrize("encoding", [None, "gb18030"])
def test_what_is_no_text_is_named_by_its_first_bytes(head, kind, hint, encoding):
    data = head + bytes(range(256)) * 9
    for read in (lambda: decode_bytes(data, encoding, name="a"), lambda: list(TextStream(iter([data]), "a", encoding))):
        with pytest.raises(UserError) as caught:
            read()
        assert (caught.value.message, caught.value.hint) == (f"a: {kind}, not text", hint)


def test_an_empty_file_is_refused():
    with pytest.raises(UserError) as caught:
        decode_bytes(b"", name="empty.txt")
    assert str(caught.value) == (
        "error: empty.txt: empty, expected the text of a novel\n\nhint: give another file than empty.txt"
    )


def test_a_file_of_which_a_large_part_is_damaged_is_refused_unless_the_encoding_is_given():
    data = (SIMPLIFIED * 10).encode()
    data = data[:300] + b"\xff" * 200 + data[300:]
    with pytest.raises(UserError) as caught:  # byte 300 parts a character of three bytes
        decode_bytes(data, name="torn.txt")
    assert str(caught.value) == (
        f"error: torn.txt: 203 of {len(data):,} bytes are not UTF-8, the first at byte 298; expected at most 3%\n\n"
        "hint: --encoding utf-8 drops them; better get an undamaged file"
    )
    assert len(decode_bytes(data, "utf-8").text) == len(SIMPLIFIED * 10) - 1


def test_some_damage_is_counted_and_read_over():
    data = (SIMPLIFIED * 10).encode()
    decoded = decode_bytes(data[:300] + b"\xff" * 20 + data[300:])  # byte 300 parts a character of three bytes
    assert (len(decoded.text), decoded.bad_bytes) == (len(SIMPLIFIED * 10) - 1, 23)


def test_text_of_another_language_is_refused_not_guessed():
    data = ("これは日本語のテキストです。漢字もあります。" * 20).encode("shift_jis")
    with pytest.raises(UserError) as caught:
        decode_bytes(data)
    assert caught.value.code == EXIT_INPUT
    assert decode_bytes(data, "shift_jis").text.startswith("これは日本語")


def test_random_bytes_are_refused():
    rng = random.Random(5)
    for size in (10, 100, 1000, 20_000):
        with pytest.raises(UserError):
            decode_bytes(bytes(rng.randrange(128, 256) for _ in range(size)))


def test_a_forced_encoding_is_not_asked_about():
    assert decode_bytes("你好".encode("gbk"), "GBK").text == "你好"
    assert decode_bytes("你好".encode("gbk"), "big5").text == "斕疑"
    assert decode_bytes("你好".encode("utf-16"), "utf-16").text == "你好"
    assert decode_bytes("你好".encode("utf-8-sig"), "utf-8").text == "你好"


@pytest.mark.parametrize("name", ["gb18031", "base64", "", "utf-8\0"])
def test_an_unknown_encoding_is_a_usage_error(name):
    with pytest.raises(UserError) as caught:
        decode_bytes(b"abc", name)
    assert caught.value.code == EXIT_USAGE
    assert str(caught.value) == (
        f"error: --encoding: unknown encoding {name!r}\n\nhint: --encoding gb18030, big5, utf-8, utf-16-le or utf-16-be"
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("newline", ["\r\n", ""])
def test_a_stream_gives_the_same_text_in_blocks(tmp_path, encoding, newline):
    text = (SIMPLIFIED * 8000).replace("\n", newline)  # over a million characters
    path = tmp_path / "novel.txt"
    path.write_bytes(text.encode(encoding))
    stream = stream_text(path)
    blocks = list(stream)
    assert "".join(blocks) == text
    assert len(blocks) > 1 and max(map(len, blocks)) <= 1 << 20
    assert not any(block.endswith("\r") for block in blocks)
    assert stream.decoded.encoding == {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(encoding, encoding)


def test_a_stream_counts_bad_bytes_with_their_places(tmp_path):
    data = (SIMPLIFIED * 5000).encode()
    path = tmp_path / "novel.txt"
    path.write_bytes(data[:2_000_000] + b"\xff" + data[2_000_000:])
    stream = stream_text(path)
    text = "".join(stream)
    # Byte 2,000,000 is the second of a character's three, which are lost with the one between them.
    assert (stream.bad_bytes, stream.bad_offsets) == (4, (1_999_999, 2_000_000, 2_000_001, 2_000_002))
    assert len(text) == len(SIMPLIFIED * 5000) - 1


@pytest.mark.sweep
def test_a_stream_that_changes_its_encoding_is_read_on(tmp_path):
    first, second = SIMPLIFIED * 3000, TRADITIONAL * 6000
    path = tmp_path / "novel.txt"
    path.write_bytes(first.encode("gb18030") + second.encode("big5"))
    stream = stream_text(path)
    assert "".join(stream) == first + second
    decoded = stream.decoded
    assert (decoded.encoding, decoded.bad_bytes) == ("mixed", 0)
    assert decoded.segments == ((1, 15_000, "gb18030"), (15_001, 45_000, "big5"))
    assert decoded.reason == "its lines are in Big5 and GB18030"


def test_a_stream_reads_a_strange_line_as_a_file_does():
    book, other, line = SIMPLIFIED * 4000, SIMPLIFIED.split("\n")[2].strip(), TRADITIONAL.split("\n")[3].strip()
    data = book.encode("gb18030") + other.encode("gb18030") + line.encode("big5") + b"\n" + book.encode("gb18030")
    stream = TextStream((data[start : start + 500_000] for start in range(0, len(data), 500_000)), "a.txt")
    assert "".join(stream) == f"{book}{other}{line}\n{book}"
    whole = decode_bytes(data)
    assert stream.decoded.torn_lines == whole.torn_lines == (20_001,)
    assert (stream.decoded.encoding, stream.decoded.segments) == (whole.encoding, whole.segments)


def test_a_stream_that_begins_in_ascii_is_decided_by_what_follows():
    head, book = "= = =\n" * 3000, SIMPLIFIED * 500
    data = (head + book).encode("gb18030")
    stream = TextStream((data[start : start + 10_000] for start in range(0, len(data), 10_000)), "a.txt")
    assert "".join(stream) == head + book
    assert (stream.decoded.encoding, stream.bad_bytes) == ("gb18030", 0)


def test_a_stream_of_no_text_is_refused_in_the_end():
    rng = random.Random(6)
    head, noise = (SIMPLIFIED * 100).encode("gb18030"), bytes(rng.randrange(129, 255) for _ in range(90_000))
    stream = TextStream(iter([head, *(noise[start : start + 30_000] for start in range(0, 90_000, 30_000))]), "a.txt")
    with pytest.raises(UserError) as caught:
        list(stream)
    assert caught.value.message.startswith(
        "a.txt: not Chinese text in any known encoding; the nearest, gb18030, reads 「"
    )
