"""What a request says, checked: its body, and the values in it."""

import json
from collections.abc import Mapping

from starlette.requests import Request

from novelgpt.messages import EXIT_USAGE, UserError
from novelgpt.studio.edits import whole_characters
from novelgpt.studio.jobs import ENDINGS
from novelgpt.studio.stories import Story


def refuse_constant(word: str) -> None:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise ValueError(word)


async def read_body(request: Request) -> dict:
    """Return the JSON object of a request, empty where there is no body."""
    data = await request.body()
    try:
        body = json.loads(data, parse_constant=refuse_constant) if data else {}
        if "\\ud" in data.decode("utf-8", "replace").lower():  # halves of characters, which no file can hold
            body = json.loads(whole_characters(json.dumps(body, ensure_ascii=False)))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise UserError("the body of the request is no JSON object", '{"name": "…"}', EXIT_USAGE)
    return body


def read_node(story: Story, number: object) -> str:
    """Return the text at a node of a story; None: at what is shown."""
    if number is not None and (type(number) is not int or number not in story.tree.nodes):
        raise UserError(f"node: found {number!r:.40}, expected a node of the story", "load the story again", EXIT_USAGE)
    with story.lock:
        story.take_growth()  # the page may have seen more of it than the story has
        return story.tree.text(number)


def read_number(body: Mapping, name: str, high: int, *, low: int = 0, default: int | None = None) -> int:
    """Return a whole number of a request."""
    number = body.get(name, default)
    if type(number) is not int or not low <= number <= high:
        message = f"{name}: found {number!r:.40}, expected a whole number from {low} to {high}"
        raise UserError(message, "load the story again", EXIT_USAGE)
    return number


def read_seen(text: str, count: int) -> list[int]:
    """Return the characters of each candidate that a reader has, from "12,10"; nothing is none of any.

    >>> read_seen("12,10", 2), read_seen("", 2)
    ([12, 10], [0, 0])
    """
    parts = text.split(",") if text else ["0"] * count
    if len(parts) != count or not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise UserError(
            f"from: found {text!r:.40}, expected {count} numbers", "from=" + ",".join("0" * count), EXIT_USAGE
        )
    return list(map(int, parts))


def read_growth(seen: object) -> dict[int, int]:
    """Return how many characters of each growing node a page shows."""
    is_table = isinstance(seen, dict) and all(type(count) is int and count >= 0 for count in seen.values())
    if not is_table or not all(node.isdecimal() and len(node) < 10 for node in seen):
        message = f"seen: found {seen!r:.40}, expected characters of nodes"
        raise UserError(message, '"seen": {"3": 120}', EXIT_USAGE)
    return {int(node): count for node, count in seen.items()}


def read_wanted(body: Mapping) -> dict:
    """Return what of a request for a job goes to the engine as it is; the engine looks at it."""
    names = {"candidates": 1, "length": 200, "seed": None, "ending": ENDINGS[0]}
    names |= {"forced": "", "guard": 0, "keep_head": 0}
    wanted = {name: body.get(name, default) for name, default in names.items()}
    if not isinstance(wanted["forced"], str):
        raise UserError(f"forced: found {wanted['forced']!r:.40}, expected text", '"forced": ""', EXIT_USAGE)
    return wanted
