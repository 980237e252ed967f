"""A file in blocks: the text it has as a whole, whatever its encoding, and blocks that end where a text may end."""

import re

import pytest

from novelgpt.corpus.documents import stream_text
from novelgpt.corpus.encodings import cut_blocks
from novelgpt.messages import UserError

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


def test_a_stream_that_changes_its_encoding_is_refused(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_bytes((SIMPLIFIED * 3000).encode("gb18030") + (TRADITIONAL * 6000).encode("big5"))
    with pytest.raises(UserError, match=r"GB18030 at first, something else from byte [\d,]+ on"):
        list(stream_text(path))


def test_a_block_begins_with_a_heading_rather_than_with_a_line():
    texts = ["第一章\n他走了。\n第二", "章\n她来了。\n雪。"]
    blocks = list(cut_blocks(texts, size=14, before=re.compile("\n(?=第)")))
    assert blocks == ["第一章\n他走了。\n", "第二章\n她来了。\n雪。"]


def test_a_text_without_any_end_is_cut_where_the_block_is_full():
    assert list(cut_blocks(["雪" * 25], size=10)) == ["雪" * 10, "雪" * 10, "雪" * 5]
