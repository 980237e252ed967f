"""A text in blocks, which end where a text may end. Whole books are tested with clr_ctrl.py."""

from novelgpt.corpus.books import cut_blocks


def test_a_block_begins_with_a_heading_rather_than_with_a_line():
    texts = ["第一章\n他走了。\n第二", "章\n她来了。\n雪。"]
    blocks = list(cut_blocks(texts, size=14))
    assert blocks == ["第一章\n他走了。\n", "第二章\n她来了。\n雪。"]


def test_a_text_without_any_end_is_cut_where_the_block_is_full():
    assert list(cut_blocks(["雪" * 25], size=10)) == ["雪" * 10, "雪" * 10, "雪" * 5]
