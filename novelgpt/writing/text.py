"""A text in the making: how far it is to go, where it may end, where a window may begin. All of it on token ids.

他抬起头来。“走！”\n[CLS]第二章
          ^     ^ ^             sentence ends: after 。 and after ！”, with the closing quotation mark
                  ^             paragraph end: before the line break
                     ^          chapter end: before [CLS]
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from novelgpt.corpus.style import LOOP_STEP, find_loop

CHECK_EVERY = 16  # tokens decoded between two looks at the texts; a window always leaves room for so many
SENTENCE_ENDS = "。！？…!?"
QUOTES = '“”‘’「」『』"'
CLOSERS = "”’」』）】》\"')"
STOPS = {"sentence": 200, "paragraph": 1_000, "chapter": 5_000, "never": 0}  # tokens that may follow --length


@dataclass(frozen=True)
class StopRule:
    """Where a text stops."""

    length: int  # new tokens; with a stop other than "never" the text runs on to the next such end
    stop: str = "never"  # a key of STOPS, which gives the bound of that search
    cut_loops: bool = False  # end a text that repeats itself, after the first round
    bound: int | None = None  # tokens that the search may take after the length; None for the one of STOPS
    is_answer: bool = False  # the text is what a mark asks for, such as a title; it has at least one token

    @property
    def max_tokens(self) -> int:
        """Return how many tokens a text can get before it is cut."""
        if self.stop == "never":
            return self.length
        bound = STOPS[self.stop] if self.bound is None else self.bound
        return self.length + bound + 1  # an end is seen by the token behind it


def answer_rule(length: int, *, cut_loops: bool = False) -> StopRule:
    """Return the rule for what a mark asks for, such as a title after [TIL]: from one token to its document's end.

    The length is how many tokens it may have at most, from 1 up.

    >>> answer_rule(20).max_tokens
    21
    """
    return StopRule(1, "chapter", cut_loops, bound=length - 1, is_answer=True)


class Endings:
    """The token ids that end sentences, paragraphs and chapters in the vocabulary of a NovelTokenizer."""

    def __init__(self, tokenizer):
        self.ends = single_ids(tokenizer, SENTENCE_ENDS)
        self.closers = single_ids(tokenizer, CLOSERS)
        self.chapter = tokenizer.cls_id
        self.breaks = single_ids(tokenizer, "\n") | {tokenizer.cls_id, tokenizer.sep_id}

    def is_end(self, ids: Sequence[int], place: int, stop: str) -> bool:
        """Tell whether a text may be cut before ids[place], from 1 to len(ids) - 1, at any stop but "never"."""
        if stop == "chapter":
            return ids[place] == self.chapter
        # a line break ends a paragraph, and the sentence in it too; of several breaks only the first
        if ids[place] in self.breaks:
            return ids[place - 1] not in self.breaks
        # in 。” and …… the sentence extends to the last of these characters
        if stop == "paragraph" or ids[place] in self.ends or ids[place] in self.closers:
            return False
        last = place - 1
        while last > 0 and ids[last] in self.closers:
            last -= 1
        return ids[last] in self.ends

    def find_end(self, ids: Sequence[int], first: int, stop: str) -> int | None:
        """Return the first place from `first` on at which a text may be cut; None when there is none yet."""
        return next((place for place in range(max(1, first), len(ids)) if self.is_end(ids, place, stop)), None)

    def find_sentence(self, ids: Sequence[int], first: int) -> int:
        """Return the first place from `first` on at which a sentence begins; `first` itself when there is none."""
        for place in range(max(1, first), len(ids)):
            if ids[place] not in self.breaks and (ids[place - 1] in self.breaks or self.is_end(ids, place, "sentence")):
                return place
        return first


def single_ids(tokenizer, characters: str) -> set[int]:
    """Return the ids of those characters that are one token each."""
    encoded = [tokenizer.encode(character) for character in characters]
    return {int(ids[0]) for ids in encoded if len(ids) == 1}


@dataclass
class Sample:
    """One text in the making."""

    index: int  # from 0
    prefix: list[int]  # token ids it began with
    ids: list[int] = field(default_factory=list)  # token ids written so far; cut when ended
    ended: str = ""  # why: "length", a key of STOPS, "bound", "loop" or "stopped" (a signal); empty while it grows
    attempt: int = 0  # how many tries came before it
    checked: int = 0  # tokens in which loops have been looked for
    nats: list[float] = field(default_factory=list)  # how much each token surprised the model, where that is noted

    def extend(self, tokens: Sequence[int], rule: StopRule, endings: Endings) -> None:
        """Take further tokens and end the text where the rule says; tokens after the end are dropped."""
        if self.ended:
            return
        self.ids += tokens
        # a loop goes before all else: in it no sentence need ever end
        if rule.cut_loops and (cut := self.find_first_loop()) is not None:
            self.end(cut, "loop")
        elif rule.stop == "never":
            if len(self.ids) >= rule.length:
                self.end(rule.length, "length")
        elif (cut := endings.find_end(self.ids, rule.length, rule.stop)) is not None and cut < rule.max_tokens:
            self.end(cut, rule.stop)
        # no end within the bound: at least a whole sentence, if there is one
        elif len(self.ids) >= rule.max_tokens:
            whole = endings.find_end(self.ids[: rule.max_tokens], rule.length, "sentence")
            self.end(whole or rule.max_tokens - 1, "bound")

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
