"""Operations of a request -> records: places move over what others have changed meanwhile, so that nothing is lost.

An edit of a text is a list from its beginning on: n > 0 characters stay, n < 0 characters go, a text comes; what is not
spoken of stays. `transform` is the operational transformation of such lists (Ellis and Gibbs 1989; the form is that of
the library ot.js).
"""

import time
from collections.abc import Mapping, Sequence

from novelgpt.messages import EXIT_USAGE, UserError

MOST_TYPED = 40  # characters that are typed in one go
LONGEST_NAME = 80  # characters

Edit = list[int | str]


def transform(edit: Edit, other: Edit, *, is_first: bool) -> Edit:
    """Return an edit of a text as an edit of what another one has made of that text.

    Args:
        edit, other: of the same text.
        is_first: where both put in text at one place, the edit's comes first.

    >>> transform([3, "月"], [1, -1, "夜里"], is_first=True)  # 一二三 → 一夜里三月
    [1, 2, 1, '月']
    """
    result: Edit = []
    mine, theirs = ([part for part in reversed(parts) if part] for parts in (edit, other))
    while mine:
        one, two = mine.pop(), theirs.pop() if theirs else None
        # text that comes in takes no place of what was there
        if isinstance(one, str) and (is_first or not isinstance(two, str)):
            result.append(one)
            theirs += [] if two is None else [two]
            continue
        if isinstance(two, str):
            result.append(len(two))
            mine.append(one)
            continue
        # as many characters as both speak of; what the other has taken away needs no word
        count = min(abs(one), abs(two)) if two else abs(one)
        if two is None or two > 0:
            result.append(count if one > 0 else -count)
        if rest := abs(one) - count:
            mine.append(rest if one > 0 else -rest)
        if two and (rest := abs(two) - count):
            theirs.append(rest if two > 0 else -rest)
    return [part for part in result if part]


def rebase(edits: Sequence[Edit], changes: Sequence[Edit], *, is_first: bool = False) -> list[Edit]:
    """Return edits, each of what the former one left, as edits of what some changes have made of the same text.

    Args:
        edits, changes: both begin with the same text.
        is_first: at the same place, whether the edits' text stands before that of the changes.

    >>> rebase([[2, "月"], [3, "色"]], [["一"], [2, -1]])  # 天夜里 → 天夜月色里; meanwhile 一天里
    [[1, 1, '月'], [1, 1, 1, '色']]
    """
    result = []
    for edit in edits:
        rest = []
        for change in changes:
            moved = transform(change, edit, is_first=not is_first)
            edit = transform(edit, change, is_first=is_first)
            rest.append(moved)
        changes = rest
        result.append(edit)
    return result


def place_edits(edits: Sequence[Edit], grown: Sequence[Edit] | None, changes: Sequence[Edit]) -> list[Edit]:
    """Return edits as edits of what is there now.

    Args:
        edits: of what somebody had.
        grown: what the model had written by then and he had not seen: it goes on behind what he typed at its end.
        changes: what others have done since; theirs came first.

    >>> place_edits([[2, "月"]], [[2, "色好"]], [])  # 夜里 was 夜里色好 by then
    [[2, '月']]
    """
    return rebase(rebase(edits, grown or [], is_first=True), changes)


def growth_of(changes: Sequence[Edit]) -> int:
    """Return by how many characters changes make a text longer."""
    parts = [part for edit in changes for part in edit[1:]]
    return sum(len(part) if isinstance(part, str) else min(part, 0) for part in parts)


def replacements(edit: Edit) -> list[tuple[int, int, str]]:
    """Return the parts of a text that an edit replaces, the last one first, so that no place moves.

    >>> replacements([2, -1, 3, -2, "夜"])
    [(6, 8, '夜'), (2, 3, '')]
    """
    found: list[tuple[int, int, str]] = []
    place = 0
    for part in edit:
        if isinstance(part, int) and part > 0:
            place += part
            continue
        start, end, text = found.pop() if found and found[-1][1] == place else (place, place, "")
        text, end = (text + part, end) if isinstance(part, str) else (text, end - part)
        place = end
        found.append((start, end, text))
    return [item for item in reversed(found) if item[0] < item[1] or item[2]]


def whole_characters(text: object, name: str = "text") -> str:
    r"""Return a text without halves of characters, which no file can hold; UserError: it is none.

    >>> whole_characters("\ud83d月")
    '\ufffd月'
    """
    if not isinstance(text, str):
        raise UserError(f"{name}: found {text!r:.40}, expected text", f"{name} is a text in quotes", EXIT_USAGE)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Batch:
    """Operations of one request on their way to records; the tree is only looked at.

    Args:
        tree: the Tree of the story.
        may_type: whether what is typed may go on with what was typed last.

    Attributes:
        records: what they come to.
        is_typing: whether the last one may be gone on with.
    """

    def __init__(self, tree, *, may_type: bool):
        self.tree, self.may_type = tree, may_type
        self.records: list[dict] = []
        self.head, self.next_id = tree.head, max(tree.nodes) + 1
        self.is_typing = False

    def add_all(self, base: object, ops: object, seen: Mapping[int, int]) -> None:
        """Add the operations of a request; a group of changes refers to the base, or to the head moved to before."""
        if type(base) is not int or not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
            hint = 'send {"base": 3, "ops": [{"head": 2}]}'
            raise UserError("ops: expected a number base and a list ops", hint, EXIT_USAGE)
        self.may_type &= base == self.tree.version
        grown, changes, length, edits = None, [], 0, []
        for op in ops:
            if "name" in op:
                self.records.append({"record": "name", "name": read_name(op["name"])})
                continue
            if "head" in op:
                self._add_edits(place_edits(edits, grown, changes))
                length, edits = self._go(op["head"]), []
                grown, changes = self.tree.changes_at(self.head, seen), []
                length -= growth_of(grown)
                continue
            if grown is None:
                grown, changes = self.tree.changes_since(base, seen)
                length = self.tree.nodes[self.tree.head].length - growth_of([*grown, *changes])
            start, end, text = read_replace(op, length)
            length += len(text) - (end - start)
            edits.append([start, start - end, text])
        self._add_edits(place_edits(edits, grown, changes))

    def _add_edits(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            for start, end, text in replacements(edit):
                self._replace(start, end, text)

    def _replace(self, start: int, end: int, text: str) -> None:
        """Add one change: to what was just typed, or as a node of its own."""
        self.is_typing = True
        last = self.records[-1] if self.records else {}
        if last.get("kind") == "typed":
            place = last["replace"][0]
            if place <= start <= end == place + len(last["text"]) and start - place + len(text) <= MOST_TYPED:
                last["text"] = last["text"][: start - place] + text
                return
        if not self.records and self.may_type and self.tree.may_type(start, end, text):
            self.records.append({"record": "type", "id": self.head, "replace": [start, end], "text": text})
            return
        node = {"record": "node", "id": self.next_id, "parent": self.head, "replace": [start, end], "text": text}
        self.records.append({**node, "kind": "typed", "time": int(time.time())})
        self.head, self.next_id = self.next_id, self.next_id + 1

    def _go(self, number: object) -> int:
        """Add a move of the head; return the length of the text there."""
        if type(number) is not int or number not in self.tree.nodes:
            message = f"head: found {number!r:.40}, expected the number of a node"
            raise UserError(message, "load the story again", EXIT_USAGE)
        self.records.append({"record": "head", "id": number})
        self.head, self.is_typing = number, False
        return self.tree.nodes[number].length


def read_replace(op: Mapping, length: int) -> tuple[int, int, str]:
    """Return start, end and text of a change of a text of so many characters; UserError: it is none."""
    place, text = op.get("replace"), whole_characters(op.get("text"))
    is_pair = isinstance(place, list) and len(place) == 2 and all(type(number) is int for number in place)
    if not is_pair or not 0 <= place[0] <= place[1] <= length:
        message = f"replace: found {place!r:.60}, expected [start, end] within {length} characters"
        raise UserError(message, "load the story again", EXIT_USAGE)
    return place[0], place[1], text


def read_name(name: object) -> str:
    """Return the name of a story on one line, not too long."""
    return " ".join(whole_characters(name, "name").split())[:LONGEST_NAME]
