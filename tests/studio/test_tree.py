"""The tree of a story: what records make of it, places that move, undo and redo."""

import itertools
import random

import pytest

from novelgpt.studio.edits import growth_of, place_edits, rebase, replacements, transform
from novelgpt.studio.tree import Conflict, Tree, Unfit

WORDS = "那天夜里没有月亮𠮷😀\n"


def node(number: int, parent, start: int, end: int, text: str, kind: str = "typed", **more) -> dict:
    return {
        "record": "node",
        "id": number,
        "parent": parent,
        "replace": [start, end],
        "text": text,
        "kind": kind,
        **more,
    }


def tree_of(*records) -> Tree:
    tree = Tree()
    tree.apply({"record": "story", "id": "a", "made": 0, "name": "a"})
    for record in records:
        tree.apply(record)
    return tree


def applied(edit, text: str) -> str:
    """Carry out an edit by reading it from left to right: independent of replacements()."""
    result, place = "", 0
    for part in edit:
        if isinstance(part, str):
            result += part
        elif part > 0:
            result, place = result + text[place : place + part], place + part
        else:
            place -= part
    return result + text[place:]


def random_edit(draw: random.Random, length: int) -> list:
    edit, place = draw.choice(([], [0], [""])), 0
    while place < length and draw.random() < 0.8:
        kind, count = draw.choice("keep cut put".split()), draw.randint(1, 3)
        if kind == "put":
            edit.append("".join(draw.choices(WORDS, k=count)))
        else:
            count = min(count, length - place)
            edit.append(count if kind == "keep" else -count)
            place += count
    return edit or [length, "末"]


def test_two_edits_give_one_text_in_whichever_order_they_come():
    draw = random.Random(1)
    for _ in range(3000):
        text = "".join(draw.choices("甲乙丙丁戊己庚辛", k=draw.randint(0, 12)))
        one, two = random_edit(draw, len(text)), random_edit(draw, len(text))
        by_one = applied(transform(two, one, is_first=False), applied(one, text))
        by_two = applied(transform(one, two, is_first=True), applied(two, text))
        assert by_one == by_two, (text, one, two)


def test_the_parts_that_an_edit_replaces_give_its_text():
    draw = random.Random(2)
    for _ in range(2000):
        text = "".join(draw.choices("甲乙丙丁", k=draw.randint(0, 12)))
        edit, result = random_edit(draw, len(text)), text
        for start, end, new in replacements(edit):
            result = result[:start] + new + result[end:]
        assert result == applied(edit, text)


def test_kinds_of_characters_are_those_of_a_list_with_one_entry_each():
    draw, plain, tree = random.Random(3), ["root"] * 4, tree_of(node(0, None, 0, 0, "那天夜里", "root"))
    for number in range(1, 600):
        start = draw.randint(0, len(plain))
        end = draw.randint(start, min(len(plain), start + 5))
        length, kind = draw.randint(0, 4), draw.choice(("typed", "model", "import"))
        tree.apply(node(number, number - 1, start, end, "字" * length, kind))
        plain[start:end] = [kind] * length
        runs = tree.origins()
        assert [kind for count, kind in runs for _ in range(count)] == plain
        assert all(one[1] != two[1] for one, two in itertools.pairwise(runs))


def test_undo_to_the_first_character_and_redo_to_the_last_gives_all_500_texts_again():
    draw, tree = random.Random(4), tree_of(node(0, None, 0, 0, "那天夜里", "root"))
    texts, text = ["那天夜里"], "那天夜里"
    for number in range(1, 501):
        start = draw.randint(0, len(text))
        end, new = min(len(text), start + draw.randint(0, 2)), "".join(draw.choices(WORDS, k=draw.randint(0, 3)))
        tree.apply(node(number, number - 1, start, end, new, draw.choice(("typed", "model"))))
        text = text[:start] + new + text[end:]
        texts.append(text)
    assert tree.text() == text
    for number in reversed(range(500)):
        tree.apply({"record": "head", "id": tree.nodes[tree.head].parent})
        assert (tree.head, tree.text()) == (number, texts[number])
    for number in range(1, 501):
        tree.apply({"record": "head", "id": tree.redo()})
        assert (tree.head, tree.text()) == (number, texts[number])
    assert tree.redo() is None


def test_redo_goes_to_the_version_that_was_seen_last_and_all_siblings_stay():
    tree = tree_of(node(0, None, 0, 0, "夜", "root"), node(1, 0, 1, 1, "里"), {"record": "head", "id": 0})
    tree.apply(node(2, 0, 1, 1, "色", "model"))
    tree.apply(node(3, 0, 1, 1, "晚", "model", head=False))
    assert (tree.text(), tree.text(1), tree.text(3)) == ("夜色", "夜里", "夜晚")
    tree.apply({"record": "head", "id": 1})
    tree.apply({"record": "head", "id": 0})
    assert tree.redo() == 1 and tree.nodes[0].children == [1, 2, 3]


def test_typing_in_one_go_grows_one_node():
    tree = tree_of(node(0, None, 0, 0, "夜", "root"), node(1, 0, 1, 1, "里"))
    assert tree.may_type(2, 2, "有") and not tree.may_type(0, 0, "有") and not tree.may_type(2, 2, "月" * 40)
    tree.apply({"record": "type", "id": 1, "replace": [2, 2], "text": "有月"})
    tree.apply({"record": "type", "id": 1, "replace": [3, 4], "text": "风"})  # 月 taken back
    assert (tree.text(), tree.nodes[1].text, tree.nodes[1].length, tree.version) == ("夜里有风", "里有风", 4, 4)


@pytest.mark.parametrize(
    ("start", "end", "typed", "expected"),
    [
        (1, 1, "呀", "夜呀里一二三了。"),  # before what grows: it follows
        (3, 3, "呀", "夜里一呀二三了。"),  # at its tip: typed text stays before what comes
        (4, 4, "呀", "夜里一二三了呀。"),  # behind it
        (2, 3, "呀", "夜里呀二三了。"),  # in place of what has grown so far
        (2, 4, "呀", "夜里呀。"),  # around its tip: what comes is taken away with it
        (3, 4, "", "夜里一二三。"),  # what follows is taken away
    ],
)
def test_what_is_typed_while_a_text_grows_stays_where_it_was_typed(start, end, typed, expected):
    # 夜里 · 了。 with 一 grown between them; then a person types, then 二三 comes
    tree = tree_of(node(0, None, 0, 0, "夜里了。", "root"), node(1, 0, 2, 2, "", "model"))
    tree.apply({"record": "grow", "id": 1, "text": "一", "nats": [1.0]})
    tree.apply(node(2, 1, start, end, typed))
    tree.apply({"record": "grow", "id": 1, "text": "二三", "nats": [1.0, 2.0]})
    assert tree.text(1) == "夜里一二三了。"
    assert tree.text() == expected and tree.nodes[2].length == len(expected)
    assert sum(count for count, _ in tree.origins()) == len(expected)


def test_what_was_not_yet_seen_of_a_growing_text_moves_places_behind_it():
    tree = tree_of(node(0, None, 0, 0, "夜里了。", "root"), node(1, 0, 2, 2, "", "model"))
    tree.apply({"record": "grow", "id": 1, "text": "一二三"})
    # the page has 夜里一了。 and types 呀 before 。, place 4
    grown, done = tree.changes_since(2, {1: 1})
    assert done == [] and growth_of(grown) == 2
    assert rebase([[4, "呀"]], grown) == [[3, 2, 1, "呀"]]
    assert tree.changes_at(1, {1: 1}) == grown
    with pytest.raises(Conflict):
        tree.changes_since(99, {})


def test_what_is_typed_at_the_end_of_a_growing_text_stands_before_what_had_grown_unseen():
    tree = tree_of(node(0, None, 0, 0, "夜里", "root"), node(1, 0, 2, 2, "", "model"))
    tree.apply({"record": "grow", "id": 1, "text": "一二三四"})
    # the page has 夜里一二 and types 呀 at its end, place 4; there the model goes on behind it, as on the page
    assert place_edits([[4, "呀"]], *tree.changes_since(2, {1: 2})) == [[4, "呀"]]
    tree.apply(node(2, 1, 4, 4, "呀"))
    assert tree.text() == "夜里一二呀三四"


def test_a_version_of_another_branch_is_a_conflict():
    tree = tree_of(node(0, None, 0, 0, "夜", "root"), node(1, 0, 1, 1, "里"), {"record": "head", "id": 0})
    tree.apply(node(2, 0, 1, 1, "色"))
    with pytest.raises(Conflict, match="node 1 is not on the way to what is shown"):
        tree.changes_since(2, {})
    assert place_edits([[1, "！"]], *tree.changes_since(1, {})) == [[1, 1, "！"]]  # beside 夜色: behind what came first


@pytest.mark.parametrize(
    "record",
    [
        {}, {"record": "nonsense"}, {"record": "head", "id": 9}, {"record": "grow", "id": 0, "text": "x"},
        node(0, None, 0, 0, "again", "root"), node(1, 9, 0, 0, ""), node(1, 0, 0, 9, ""), node(1, 0, 1, 0, ""),
        node("1", 0, 0, 0, ""), node(1, 0, 0, 0, None), node(1, 0, 0, 0, "", "nonsense"),
        {"record": "type", "id": 0, "replace": [0, 0], "text": "x"}, {"record": "end", "id": 3, "why": "length"},
        {"record": "node", "id": 1, "parent": 0, "replace": "ab", "text": "", "kind": "typed"},
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_changes_nothing(record):
    tree = tree_of(node(0, None, 0, 0, "夜", "root"))
    with pytest.raises(Unfit):
        tree.apply(record)
    assert (tree.text(), tree.version, list(tree.nodes)) == ("夜", 1, [0])


def test_records_of_a_tree_make_the_same_tree():
    draw, tree = random.Random(5), tree_of(node(0, None, 0, 0, "那天夜里", "root"))
    for number in range(1, 200):
        tree.apply({"record": "head", "id": draw.choice(list(tree.nodes))})
        length = tree.nodes[tree.head].length
        start = draw.randint(0, length)
        kind = draw.choice(("typed", "model"))
        tree.apply(node(number, tree.head, start, draw.randint(start, length), draw.choice(WORDS), kind))
        grown = draw.choice([name for name, kept in tree.nodes.items() if kept.kind == "model"] or [None])
        if grown is not None:
            tree.apply({"record": "grow", "id": grown, "text": draw.choice(WORDS), "nats": [0.5]})
        assert len(tree.text()) == tree.nodes[tree.head].length
    again = Tree()
    for record in tree.records():
        again.apply(record)
    assert again.records()[1:] == tree.records()[1:]
    assert [again.text(number) for number in again.nodes] == [tree.text(number) for number in tree.nodes]
    assert again.views[0] == (tree.head, 1) and again.version > tree.version  # no version comes twice
