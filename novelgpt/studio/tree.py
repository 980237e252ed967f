"""A story as a tree of versions: every change is a node, and the text at a node is its parent's with a part replaced.

::

    0 root "那天夜里"  ── 1 typed "，没有月亮"  ── 2 model "。他走了"      the head: what is shown
                                              └ 3 model "，也没有风"    another candidate, a version beside it

The tree is what its records make of it, one after the other; journal.py keeps them. A place is a number of code points.
What a person does refers to a version; meanwhile others may have changed the text, and a job goes on writing. Then
places move over what has changed (operational transformation), so that nothing of anybody is lost.
"""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from novelgpt.studio.edits import MOST_TYPED, Edit

KINDS = ("root", "typed", "model", "import")
KEPT_TEXTS = 64  # texts of nodes that are not put together again
KEPT_KEYS = 1000
CHECKPOINT = 64  # every so many nodes on a way one of these texts
FACTS = ("settings", "seed", "index", "model", "time")  # of a node, as they came

Runs = list[tuple[int, str]]  # how many characters are of which kind
View = tuple[str, bytes]  # a text, and the place in KINDS of each character's kind


class Unfit(Exception):
    """A record that does not belong to a tree."""


class Conflict(Exception):
    """What was asked for belongs to a version that the story has left."""


@dataclass
class Node:
    """A version of a story.

    Attributes:
        start, end: the part of the parent's text that the text takes the place of.
        steps: (start, end, new length) of the changes that made it: one, or each key of what was typed in one go.
        nats: one number a character of a model's text.
        why: why a model's text ended; None while it is written, and for other kinds.
        length: characters of the whole text here.
        version: of the tree when it changed last.
        latest: the child that was visited last.
    """

    id: int
    parent: int | None
    text: str
    kind: str
    steps: list[list[int]]
    length: int
    depth: int
    version: int
    facts: dict = field(default_factory=dict)
    nats: list[float] = field(default_factory=list)
    why: str | None = None
    latest: int | None = None
    children: list[int] = field(default_factory=list)

    @property
    def start(self) -> int:
        """Where its text begins."""
        return self.steps[0][0]

    @property
    def tip(self) -> int:
        """Where its text ends."""
        return self.start + len(self.text)

    def as_shown(self) -> dict:
        """Return it as the page and the journal see it."""
        told = {"id": self.id, "parent": self.parent, "replace": self.steps[0][:2], "text": self.text}
        told |= {"kind": self.kind, **self.facts}
        return told | ({"nats": self.nats, "why": self.why} if self.kind == "model" else {})


class Tree:
    """The versions of a story, built by records.

    Attributes:
        nodes: by their numbers, 0 the root.
        head: the node that is shown.
        version: how many records have changed the tree.
        name: of the story.

    >>> tree = Tree()
    >>> tree.apply({"record": "node", "id": 0, "parent": None, "replace": [0, 0], "text": "那天夜里", "kind": "root"})
    >>> tree.apply({"record": "node", "id": 1, "parent": 0, "replace": [0, 2], "text": "昨", "kind": "typed"})
    >>> tree.text(), tree.text(0), tree.version
    ('昨夜里', '那天夜里', 2)
    """

    def __init__(self):
        self.nodes: dict[int, Node] = {}
        self.head, self.version, self.name = 0, 0, ""
        self.facts: dict = {}  # of the story
        self.first_version = 0
        self.views: list[tuple[int, int]] = []  # of each version from the first one: head, and its steps then
        self.keys: dict[str, int] = {}  # requests that were carried out, the last ones, and the version behind each
        self.texts: OrderedDict[int, View] = OrderedDict()

    # --- records ---

    def apply(self, record: Mapping) -> None:
        """Carry out a record.

        Raises:
            Unfit: it does not belong to this tree, which stays as it was.
        """
        try:
            RECORDS[record["record"]](self, record)
        except (KeyError, TypeError, IndexError, AttributeError) as problem:
            raise Unfit(f"no record of this story: {problem!r}") from problem
        if "key" in record:
            self.keys[str(record["key"])] = self.version
            if len(self.keys) > KEPT_KEYS:
                del self.keys[next(iter(self.keys))]

    def _begin(self, record: Mapping) -> None:
        self.facts = {name: record[name] for name in ("id", "made", "encoding") if name in record}
        self.name = str(record["name"])
        self.version = self.first_version = int(record.get("version", 0))
        self.views = [(int(record.get("head", 0)), 1)]

    def _add(self, record: Mapping) -> None:
        number, parent, text, kind = record["id"], record["parent"], record["text"], record["kind"]
        above = None if parent is None else self.nodes[parent]
        start, end = record["replace"]
        before = above.length if above else 0
        is_fit = type(number) is int and number not in self.nodes and kind in KINDS and (above or not self.nodes)
        if not is_fit or not 0 <= start <= end <= before or not isinstance(text, str):
            raise Unfit(f"node {number!r} does not fit")
        node = Node(number, parent, text, kind, [[start, end, len(text)]], before - (end - start) + len(text), 0, 0)
        node.depth = above.depth + 1 if above else 0
        node.facts = {name: record[name] for name in FACTS if name in record}
        node.nats, node.why, node.latest = list(record.get("nats", [])), record.get("why"), record.get("latest")
        self.nodes[number] = node
        if above:
            above.children.append(number)
        self._moved(number if record.get("head", True) else self.head, node)

    def _type(self, record: Mapping) -> None:
        node, text, (start, end) = self.nodes[record["id"]], record["text"], record["replace"]
        if node.children or node.kind != "typed" or not node.start <= start <= end == node.tip:
            raise Unfit(f"node {node.id} takes no more")
        self._forget(node.id)
        node.text = node.text[: start - node.start] + text
        node.length += len(text) - (end - start)
        node.steps.append([start, end, len(text)])
        self._moved(self.head, node)

    def _grow(self, record: Mapping) -> None:
        node, text = self.nodes[record["id"]], record["text"]
        if node.kind != "model":
            raise Unfit(f"node {node.id} does not grow")
        kept = self.texts.pop(node.id, None)
        place, count = node.tip, len(text)
        self._shift_below(node, place, count)
        node.text += text
        node.nats += record.get("nats", [])
        node.steps[0][2] += count
        node.length += count
        node.version = self.version
        # the text that grows is mostly the one that is shown
        if kept:
            self.texts[node.id] = splice(kept, place, place, text, node.kind)

    def _end(self, record: Mapping) -> None:
        self.nodes[record["id"]].why = str(record["why"])

    def _go(self, record: Mapping) -> None:
        self._moved(self.nodes[record["id"]].id)

    def _rename(self, record: Mapping) -> None:
        self.name = str(record["name"])
        self._moved(self.head)

    def _moved(self, head: int, changed: Node | None = None) -> None:
        """Count a version, and note which way leads to the head."""
        self.head, self.version = head, self.version + 1
        if changed:
            changed.version = self.version
        self.views.append((head, len(self.nodes[head].steps)))
        node = self.nodes[head]
        while node.parent is not None and self.nodes[node.parent].latest != node.id:
            self.nodes[node.parent].latest = node.id
            node = self.nodes[node.parent]

    def _shift_below(self, node: Node, place: int, count: int) -> None:
        """Move the places of all nodes below one whose text grows by so many characters at a place."""
        waiting = [(child, place) for child in node.children]
        while waiting:
            number, at = waiting.pop()
            self.texts.pop(number, None)
            below = self.nodes[number]
            for step in below.steps:
                if step[0] < at < step[1]:  # what grows here had been taken away
                    step[1] += count
                    break
                if at < step[0] or at == step[0] < step[1]:
                    step[0], step[1] = step[0] + count, step[1] + count
                else:
                    at += step[2] - (step[1] - step[0])
            else:
                below.length += count
                waiting += [(child, at) for child in below.children]

    def _forget(self, number: int) -> None:
        self.texts.pop(number, None)

    # --- what is read ---

    def text(self, number: int | None = None) -> str:
        """Return the text at a node; None: at the head."""
        return self._view(self.head if number is None else number)[0]

    def origins(self) -> Runs:
        """Return how many characters in a row of the shown text are of which kind."""
        kinds = np.frombuffer(self._view(self.head)[1], np.uint8)
        starts = np.append(np.flatnonzero(np.diff(kinds, prepend=255)), len(kinds)).tolist()
        return [(end - start, KINDS[kinds[start]]) for start, end in itertools.pairwise(starts)]

    def _view(self, number: int) -> View:
        way = []
        while number not in self.texts and self.nodes[number].parent is not None:
            way.append(number)
            number = self.nodes[number].parent
        root = self.nodes[number]
        view = self.texts.get(number) or splice(("", b""), 0, 0, root.text, root.kind)
        for number in reversed(way):
            node = self.nodes[number]
            start, end, _ = node.steps[0]
            view = splice(view, start, end, node.text, node.kind)
            if node.depth % CHECKPOINT == 0:
                self._keep(number, view)
        self._keep(number, view)
        return view

    def _keep(self, number: int, view: View) -> None:
        self.texts[number] = view
        self.texts.move_to_end(number)
        while len(self.texts) > KEPT_TEXTS:
            self.texts.popitem(last=False)

    def redo(self) -> int | None:
        """Return the node that redo leads to."""
        return self.nodes[self.head].latest

    def since(self, version: int) -> list[dict]:
        """Return the nodes that have changed since a version."""
        return [node.as_shown() for node in self.nodes.values() if node.version > version]

    def records(self) -> list[dict]:
        """Return records that make the same tree; versions before this one are no longer known to it."""
        first = {"record": "story", **self.facts, "name": self.name, "version": self.version, "head": self.head}
        nodes = [
            {"record": "node", **node.as_shown(), "latest": node.latest, "head": False} for node in self.nodes.values()
        ]
        return [first, *nodes, {"record": "head", "id": self.head}]

    def may_type(self, start: int, end: int, text: str) -> bool:
        """Tell whether a change goes on with what the head was typed as."""
        node = self.nodes[self.head]
        is_its_end = node.kind == "typed" and not node.children and node.start <= start <= end == node.tip
        return is_its_end and start - node.start + len(text) <= MOST_TYPED

    # --- places in former versions ---

    def changes_since(self, version: int, seen: Mapping[int, int]) -> tuple[list[Edit], list[Edit]]:
        """Return the edits that lead from what somebody had before them to the shown text: what grew, what was done.

        Args:
            version: the one they had.
            seen: characters of growing nodes that they had; of others all.

        Raises:
            Conflict: what is shown now does not go on from there.
        """
        if not self.first_version <= version <= self.version:
            raise Conflict(f"version {version}, expected {self.first_version} to {self.version}")
        former, count = self.views[version - self.first_version]
        way = self.way_to(self.head)
        if former not in way:
            raise Conflict(f"node {former} is not on the way to what is shown")
        place = way.index(former)
        steps = self.nodes[former].steps[count:]
        steps += [step for number in way[place + 1 :] for step in self.nodes[number].steps]
        edits = [[start, start - end, "\0" * length] for start, end, length in steps]
        return self._unseen(way[: place + 1], count, seen), edits

    def changes_at(self, number: int, seen: Mapping[int, int]) -> list[Edit]:
        """Return the edits that lead from what somebody had seen of a node's text to all of it."""
        return self._unseen(self.way_to(number), len(self.nodes[number].steps), seen)

    def _unseen(self, way: list[int], count: int, seen: Mapping[int, int]) -> list[Edit]:
        """Return as edits what has grown at the end of a way and was not seen."""
        found = []
        for number, count_seen in seen.items():
            if number not in way:
                continue
            place, node = way.index(number), self.nodes[number]
            missing = len(node.text) - count_seen
            steps = [step for below in way[place + 1 : -1] for step in self.nodes[below].steps]
            steps += self.nodes[way[-1]].steps[:count] if number != way[-1] else []
            tip = move_place(node.tip, steps)
            if missing > 0 and tip is not None:
                found.append((tip, missing))
        return [[tip - missing, "\0" * missing] for tip, missing in sorted(found)]

    def way_to(self, number: int) -> list[int]:
        """Return the nodes from the root to one."""
        way = [number]
        while (parent := self.nodes[way[-1]].parent) is not None:
            way.append(parent)
        return way[::-1]


RECORDS = {"story": Tree._begin, "node": Tree._add, "type": Tree._type, "grow": Tree._grow}
RECORDS |= {"end": Tree._end, "head": Tree._go, "name": Tree._rename}


def move_place(place: int, steps: Sequence[Sequence[int]]) -> int | None:
    """Return where the end of a growing text is after some steps; None where it was taken away."""
    for start, end, length in steps:
        if start < place < end:
            return None
        if not (place < start or place == start < end):
            place += length - (end - start)
    return place


def splice(view: View, start: int, end: int, text: str, kind: str) -> View:
    """Return a view with the characters from start to end replaced.

    >>> splice(("夜里有月", b"\\x00\\x00\\x02\\x02"), 1, 3, "色", "typed")
    ('夜色月', b'\\x00\\x01\\x02')
    """
    kinds = bytes([KINDS.index(kind)]) * len(text)
    return view[0][:start] + text + view[0][end:], view[1][:start] + kinds + view[1][end:]
