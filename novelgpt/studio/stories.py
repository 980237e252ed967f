"""The stories of a folder: what a person does and what a job writes become records, and story.txt for every reader.

::

    mnt/stories/
      preferences.json      language, theme, …
      6f1c03d9/             a story
        journal.jsonl       everything that ever happened to it, see journal.py
        story.txt           its text as it is shown, written when there is a pause
        about.json          its name and length, for the list
      removed/              stories that were taken off the list
"""

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from novelgpt.files import move_aside, read_json, write_json, write_text
from novelgpt.lock import run_lock
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, UserError
from novelgpt.studio.edits import Batch, read_name, whole_characters
from novelgpt.studio.journal import JOURNAL, LARGE, SMALLER, Journal, Worker, to_line
from novelgpt.studio.tree import Tree, Unfit

TEXT, ABOUT, PREFERENCES, REMOVED = "story.txt", "about.json", "preferences.json", "removed"
FLUSHING, GROWING, PAUSE = 0.02, 0.25, 1.0  # seconds between two flushes, two growths; before story.txt is written
ENDED = ("done", "stopped", "failed")  # states of a job
MOST_NATS = 999.0  # of a character; JSON has no infinity
TYPING_SECONDS = 5.0  # between two changes that are typing in one go


class NoStory(UserError):
    """A story, node or job that is not there."""


@dataclass
class Writing:
    """A job and the nodes that it writes."""

    job: object
    nodes: list[int]
    counts: list[int]  # characters of each that are in the story


class Story:
    """A tree of versions and its journal.

    Args:
        folder: where they are.

    Attributes:
        writings: the jobs that write here.
        is_removed: whether it was taken off the list; nothing is written any more.
    """

    def __init__(self, folder: Path):
        self.folder, self.tree, self.journal = folder, Tree(), Journal(folder / JOURNAL)
        self.lock = threading.RLock()
        self.writings: dict[str, Writing] = {}
        self.typed_at = 0.0  # monotonic seconds of what was typed last
        self.changed_at: float | None = None  # monotonic seconds of what is not yet in story.txt
        self.is_removed = False
        self.at_rest = threading.Lock()  # held while story.txt is written

    @property
    def id(self) -> str:
        """Its short number."""
        return self.folder.name

    def load(self) -> None:
        """Read the journal; a job that was being written when the process died counts as interrupted."""
        records, damaged = self.journal.read()
        for record in records:
            try:
                self.tree.apply(record)
            except Unfit:
                damaged += 1
        if 0 not in self.tree.nodes:
            self.tree = Tree()
            for record in first_records(self.id, self.id, "", "root", None):
                self.tree.apply(record)
            damaged += 1
        for node in self.tree.nodes.values():
            if node.kind == "model" and node.why is None:
                node.why = "interrupted"
        # what is damaged stays beside it; what is large holds much that is told twice
        is_large = self.journal.size > LARGE
        whole = self.tree.records() if damaged or is_large else []
        is_large &= sum(len(to_line(record)) for record in whole) < SMALLER * self.journal.size
        if damaged or is_large:
            with contextlib.suppress(UserError):  # the disk may be full; reading needs no room
                self.journal.compact(whole, is_damaged=bool(damaged))

    def keep(self, records: Sequence[Mapping], *, may_wait: bool = False) -> None:
        """Write records and carry them out; where the disk takes nothing, nothing has happened.

        Raises:
            NoStory: it was removed meanwhile.
        """
        if self.is_removed:
            raise no_story(self.id)
        self.journal.append(records, may_wait=may_wait)
        for record in records:
            self.tree.apply(record)
        self.changed_at = time.monotonic()

    # --- what a person does ---

    def edit(self, base: int, ops: Sequence[Mapping], seen: Mapping[int, int] | None = None, key: str = "") -> int:
        """Carry out operations of the page, see docs/journal.md; return the version that they lead to.

        Args:
            base: the version that they refer to.
            ops: {"replace": [start, end], "text": …}, {"head": node} or {"name": …}, each on what the former one left.
            seen: characters of growing nodes that the page shows; of others all.
            key: a name of the request, of which a second one with that name does nothing: an answer may get lost.

        Raises:
            UserError: what makes no sense, or the disk takes nothing; the story is as it was.
            Conflict: the story is somewhere else by now.
        """
        with self.lock:
            self.take_growth()
            if key in self.tree.keys:
                return self.tree.keys[key]
            batch = Batch(self.tree, may_type=time.monotonic() - self.typed_at < TYPING_SECONDS)
            batch.add_all(base, ops, seen or {})
            if batch.records:
                batch.records[-1] |= {"key": key} if key else {}
                self.keep(batch.records)
            self.typed_at = time.monotonic() if batch.is_typing else 0.0
            return self.tree.version

    def begin(self, parent: int, replace: tuple[int, int], count: int, facts: Mapping) -> list[int]:
        """Add the empty nodes that a job will write; the first one becomes the head.

        Args:
            parent: the node whose text goes before.
            replace: the part of its text that gives way.
            count: of the candidates.
            facts: settings, seed, model.

        Raises:
            UserError: the disk takes nothing.
        """
        first = max(self.tree.nodes) + 1
        shared = {"parent": parent, "replace": list(replace), "text": "", "kind": "model", "time": int(time.time())}
        shared = {**shared, **facts}
        self.keep(
            [
                {"record": "node", "id": first + index, "index": index, "head": index == 0, **shared}
                for index in range(count)
            ]
        )
        return list(range(first, first + count))

    # --- what a job does ---

    def take_growth(self) -> bool:
        """Take over what the jobs have written since the last time; tell whether there was any."""
        with self.lock:
            records = []
            for number, writing in list(self.writings.items()):
                job = writing.job
                has_ended = job.state in ENDED  # asked first: what comes after that was written before it
                for index, node in enumerate(writing.nodes):
                    text = job.text(index)
                    if new := text[writing.counts[index] :]:
                        nats = [
                            round(min(value, MOST_NATS), 3)
                            for value in job.nats(index)[writing.counts[index] : len(text)]
                        ]
                        records.append({"record": "grow", "id": node, "text": new, "nats": nats})
                        writing.counts[index] = len(text)
                    if has_ended:
                        why = "failed" if job.state == "failed" else job.reason(index) or job.state
                        records.append({"record": "end", "id": node, "why": why})
                if has_ended:
                    del self.writings[number]
            if records:
                self.keep(records, may_wait=True)
            return bool(records)

    # --- what is shown ---

    def summary(self) -> dict:
        """Return what the list of stories tells."""
        with contextlib.suppress(OSError):
            changed = self.journal.path.stat().st_mtime
            characters = self.tree.nodes[self.tree.head].length
            facts = {"name": self.tree.name, "characters": characters, "changed": round(changed, 3)}
            return {"id": self.id, **facts, "running": bool(self.writings)}
        raise NoStory(f"{self.folder}: gone", "look for it in the folder of the stories", EXIT_INPUT)

    def view(self, since: int = -1) -> dict:
        """Return the story as the page shows it, with the nodes that changed since a version."""
        with self.lock:
            self.take_growth()
            tree = self.tree
            shown = {"id": self.id, "name": tree.name, "version": tree.version, "head": tree.head, "redo": tree.redo()}
            shown |= {"text": tree.text(), "origins": tree.origins(), "nodes": tree.since(since)}
            shown["jobs"] = [{"job": number, "nodes": job.nodes} for number, job in self.writings.items()]
            if "encoding" in tree.facts:
                shown["encoding"] = tree.facts["encoding"]
            return shown

    def write_text(self) -> None:
        """Write the text as it is shown, and the facts for the list."""
        with self.at_rest:
            if self.is_removed:
                return
            with self.lock:
                text, facts = self.tree.text(), {"name": self.tree.name, "characters": len(self.tree.text())}
                changed_at = self.changed_at
            write_text(self.folder / TEXT, text)
            write_json(self.folder / ABOUT, facts)
            with self.lock:  # a change meanwhile is not yet in there
                self.changed_at = None if self.changed_at == changed_at else self.changed_at


def no_story(number: str) -> NoStory:
    """Return the error of a story that is not there."""
    return NoStory(f"no story {number:.40}", "the list of stories has all of them", EXIT_INPUT)


def first_records(number: str, name: str, text: str, kind: str, encoding: str | None) -> list[dict]:
    """Return the records that begin a story."""
    facts = {"encoding": encoding} if encoding else {}
    story = {"record": "story", "id": number, "made": int(time.time()), "name": name, **facts}
    return [story, {"record": "node", "id": 0, "parent": None, "replace": [0, 0], "text": text, "kind": kind}]


class Stories:
    """The stories of a folder, held by one process; two threads put them onto the disk and take over what jobs write.

    Args:
        folder: mnt/stories, made where it is missing.

    Raises:
        UserError: another process holds the folder, or it cannot be written to.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.open: dict[str, Story] = {}
        self.lock, self.choosing = threading.Lock(), threading.Lock()
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(run_lock(self.folder, flag="--stories_dir"))
        self.disk = Worker(self._save, "stories-disk", FLUSHING)
        self.growth = Worker(self._grow, "stories-growth", GROWING)

    def get(self, number: str) -> Story:
        """Return a story, read when it is asked for; NoStory where there is none."""
        with self.lock:
            if number in self.open:
                return self.open[number]
            if not re.fullmatch(r"[0-9a-f]{8}", number) or not (self.folder / number / JOURNAL).is_file():
                raise no_story(number)
            story = Story(self.folder / number)
            story.load()
            self.open[number] = story
            return story

    def make(self, name: str, text: str, *, kind: str = "root", encoding: str | None = None) -> Story:
        """Return a new story.

        Args:
            name: of the story.
            text: its beginning.
            kind: "import" for a text from a file.
            encoding: the file's.
        """
        story = Story(self.folder / secrets.token_hex(4))
        story.keep(first_records(story.id, read_name(name), whole_characters(text), kind, encoding))
        with self.lock:
            self.open[story.id] = story
        self.disk.ask()
        return story

    def list_all(self) -> list[dict]:
        """Return what the list tells of each story, the one that changed last first."""
        found = []
        for path in self.folder.glob(f"*/{JOURNAL}"):
            with contextlib.suppress(UserError, OSError):
                about, number = path.with_name(ABOUT), path.parent.name
                is_told = number not in self.open and about.is_file()
                changed = path.stat().st_mtime
                if is_told and about.stat().st_mtime >= changed:  # without reading the whole journal
                    facts = {**read_json(about), "changed": round(changed, 3), "running": False}
                    found.append({"id": number, **facts})
                else:
                    found.append(self.get(number).summary())
        return sorted(found, key=lambda facts: -facts["changed"])

    def remove(self, number: str) -> None:
        """Take a story off the list; its folder goes to removed/."""
        story = self.get(number)
        with story.at_rest, story.lock, self.lock:
            if story.is_removed:
                raise no_story(number)
            for writing in story.writings.values():
                writing.job.stop()
            story.take_growth()  # what was shown goes with it
            story.journal.close()
            place = self.folder / REMOVED / number
            try:
                place.parent.mkdir(exist_ok=True)
                move_aside(place)
                story.folder.rename(place)
                story.is_removed, story.journal.waiting = True, b""
            except OSError as problem:
                message = f"{story.folder}: cannot be moved: {problem.strerror}"
                raise UserError(
                    message, f"give yourself the right to write in {self.folder}", EXIT_ENVIRONMENT
                ) from problem
            del self.open[number]

    def watch(self, story: Story, job: object, nodes: list[int]) -> None:
        """Take over what a job writes, from its beginning on."""
        with story.lock:
            story.writings[job.id] = Writing(job, nodes, [0] * len(nodes))
        job.listeners.append(self.growth.ask)
        self.growth.ask()

    @property
    def problem(self) -> UserError | None:
        """Why the disk takes nothing any more; None as long as it does."""
        return next((story.journal.problem for story in list(self.open.values()) if story.journal.problem), None)

    def preferences(self, changes: Mapping | None = None) -> dict:
        """Return what a person has chosen for the pages, after some changes."""
        path, chosen = self.folder / PREFERENCES, {}
        with self.choosing:  # two tabs may choose at once
            with contextlib.suppress(UserError):
                chosen = read_json(path) if path.exists() else {}
            if changes:
                chosen = {**chosen, **changes}
                write_json(path, chosen)
        return chosen

    def _grow(self) -> None:
        for story in list(self.open.values()):
            if story.writings and story.take_growth():
                self.disk.ask()

    def _save(self) -> float | None:
        """Flush the journals, and write story.txt of stories at rest; return when to look again."""
        stories = list(self.open.values())
        for story in stories:
            if story.journal.waiting:  # the disk may take it by now
                story.journal.append([], may_wait=True)
            story.journal.flush()
        now = time.monotonic()
        for story in stories:
            if story.changed_at is not None and (self.disk.is_closing.is_set() or now - story.changed_at > PAUSE):
                with contextlib.suppress(UserError):  # the journal has said so; the text is in there
                    story.write_text()
        return PAUSE if any(story.changed_at is not None or story.journal.waiting for story in stories) else None

    def close(self) -> None:
        """Put everything onto the disk, and give the folder back."""
        self.growth.close()
        self.disk.close()
        for story in self.open.values():
            story.journal.close()
        self.stack.close()
