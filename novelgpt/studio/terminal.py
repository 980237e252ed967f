"""A story of the studio at the terminal: `generate.py --interactive --story NAME` writes on what the page shows."""

import time

from novelgpt.messages import say
from novelgpt.studio.stories import TEXT, Stories, Story


class TerminalStory:
    """A story that somebody at a terminal writes by turns, in the form that novelgpt.writing.interactive takes it.

    Args:
        story: of the studio, whose head is what is shown.
        model: that writes.

    Attributes:
        tries: of the part that comes next, beside the first one.
    """

    def __init__(self, story: Story, model: str):
        self.story, self.model, self.tries = story, model, 0
        self.path = story.folder / TEXT

    @property
    def text(self) -> str:
        """Return the whole text."""
        return self.story.tree.text()

    @property
    def parts(self) -> list[str]:
        """Return the texts of the versions that lead to it."""
        return [self.story.tree.nodes[number].text for number in self.story.tree.way_to(self.story.tree.head)]

    def add(self, part: str, *, is_written: bool = False) -> None:
        """Append a part, as a version of its own; is_written: by the model."""
        place, tree = len(self.text), self.story.tree
        node = {"id": max(tree.nodes) + 1, "parent": tree.head, "replace": [place, place], "text": part}
        facts = {"kind": "model", "model": self.model, "why": "length"} if is_written else {"kind": "typed"}
        self.story.keep([{"record": "node", **node, **facts, "time": int(time.time())}], may_wait=True)
        self.tries = 0

    def drop(self) -> bool:
        """Go back to the version before; False at the beginning."""
        parent = self.story.tree.nodes[self.story.tree.head].parent
        if parent is None:
            return False
        self.story.keep([{"record": "head", "id": parent}], may_wait=True)
        return True

    def save(self) -> None:
        """Write story.txt; the journal has everything already."""
        self.story.write_text()


def open_at_terminal(stories: Stories, name: str, beginning: str, *, model: str, is_new: bool) -> TerminalStory:
    """Return the story with a name or number to go on with, or a new one of that name.

    Args:
        stories: the folder of the stories.
        name: of the story; of several with it the one that changed last.
        beginning: of a new story.
        model: that writes.
        is_new: begin a new one in any case.
    """
    found = [facts for facts in stories.list_all() if name in (facts["id"], facts["name"])]
    if found and not is_new:
        story = stories.get(found[0]["id"])
        say(f"going on with {story.folder}, {len(story.tree.text()):,} characters; --prefix TEXT begins a new story")
    else:
        story = stories.make(name, beginning)
        say(f"a new story, kept in {story.folder}")
    return TerminalStory(story, model)
