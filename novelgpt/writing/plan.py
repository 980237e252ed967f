"""How long a text is to be, and a text in the making that knows when it has ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from novelgpt.writing.endings import LOOP_STEP, STOPS, Endings, find_loop

BLOCK = 16  # tokens decoded between two looks at the texts


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Attributes:
        length: new tokens; with a stop other than "never" the text runs on to the next such end.
        stop: a key of STOPS, which gives the bound of that search.
        cut_loops: end a sample that repeats itself, after the first round.
        keep_head: tokens of the beginning that stay in every window.
        bound: tokens that the search for the stop may take after the length; None for the one of STOPS.
        is_answer: the text is what a mark asks for, such as a title; it has at least one token.
    """

    length: int
    stop: str = "never"
    cut_loops: bool = False
    keep_head: int = 0
    bound: int | None = None
    is_answer: bool = False

    @property
    def most(self) -> int:
        """Return how many tokens a sample can get before it is cut."""
        bound = STOPS[self.stop] if self.bound is None else self.bound
        return self.length + bound + (self.stop != "never")


def answer_plan(length: int, *, cut_loops: bool = False) -> Plan:
    """Plan what a mark asks for, such as a title after [TIL]: from one token to the end of its document.

    Args:
        length: tokens at most, from 1 up.
        cut_loops: as in Plan.

    >>> answer_plan(20).most
    21
    """
    return Plan(1, "chapter", cut_loops, bound=length - 1, is_answer=True)


@dataclass
class Sample:
    """One text in the making.

    Attributes:
        index: from 0.
        prefix: token ids it began with.
        ids: token ids written so far; cut when ended.
        ended: why it ended: "length", "sentence", "paragraph", "chapter", "bound" or "loop"; empty while it grows.
        attempt: how many tries came before it.
    """

    index: int
    prefix: list[int]
    ids: list[int] = field(default_factory=list)
    ended: str = ""
    attempt: int = 0
    checked: int = 0

    def extend(self, tokens: Sequence[int], plan: Plan, endings: Endings) -> None:
        """Take further tokens and end the text where the plan says; tokens after the end are dropped."""
        if self.ended:
            return
        self.ids += tokens
        if plan.cut_loops and (cut := self.find_first_loop()) is not None:
            self.end(cut, "loop")
        elif plan.stop == "never":
            if len(self.ids) >= plan.length:
                self.end(plan.length, "length")
        elif (cut := endings.find_end(self.ids, plan.length, plan.stop)) is not None and cut < plan.most:
            self.end(cut, plan.stop)
        elif len(self.ids) >= plan.most:
            whole = endings.find_end(self.ids[: plan.most], plan.length, "sentence")
            self.end(whole or plan.most - 1, "bound")

    def end(self, length: int, why: str) -> None:
        """Cut the text and say why."""
        self.ids, self.ended = self.ids[:length], why

    def find_first_loop(self) -> int | None:
        """Look for a loop at every LOOP_STEP-th token not looked at yet, however many come at a time."""
        while self.checked + LOOP_STEP <= len(self.ids):
            self.checked += LOOP_STEP
            if (cut := find_loop(self.ids[: self.checked])) is not None:
                return cut
        return None
