"""Where a text may end and where a window may begin: sentences, paragraphs, chapters, loops, all on token ids.

他抬起头来。“走！”\n[CLS]第二章
          ^     ^ ^             sentence ends: after 。 and after ！”, with the closing quotation mark
                  ^             paragraph end: before the line break
                     ^          chapter end: before [CLS]
"""

from collections.abc import Sequence

import numpy as np

from novelgpt.corpus.tokenizers import NovelTokenizer

SENTENCE_ENDS = "。！？…!?"
CLOSERS = "”’」』）】》\"')"
STOPS = {"sentence": 200, "paragraph": 1_000, "chapter": 5_000, "never": 0}  # tokens the search goes on after --length
LOOP_STEP = 16  # tokens between two looks for a loop
LONGEST_PERIOD = 120  # tokens
LOOP_TIMES = 4  # a loop is a run repeated this often ...
SHORTEST_LOOP = 60  # ... over at least this many tokens


class Endings:
    """The token ids that end sentences, paragraphs and chapters in one vocabulary.

    Args:
        tokenizer: gives encode, cls_id and sep_id.
    """

    def __init__(self, tokenizer: NovelTokenizer):
        self.ends = single_ids(tokenizer, SENTENCE_ENDS)
        self.closers = single_ids(tokenizer, CLOSERS)
        self.chapter = tokenizer.cls_id
        self.breaks = single_ids(tokenizer, "\n") | {tokenizer.cls_id, tokenizer.sep_id}

    def is_end(self, ids: Sequence[int], place: int, stop: str) -> bool:
        """Tell whether a text may be cut before ids[place], which must be there.

        Args:
            ids: the text.
            place: 1 to len(ids) - 1.
            stop: "sentence", "paragraph" or "chapter".
        """
        if stop == "chapter":
            return ids[place] == self.chapter
        if ids[place] in self.breaks:
            return ids[place - 1] not in self.breaks
        if stop == "paragraph" or ids[place] in self.ends or ids[place] in self.closers:
            return False
        last = place - 1
        while last > 0 and ids[last] in self.closers:
            last -= 1
        return ids[last] in self.ends

    def find_end(self, ids: Sequence[int], first: int, stop: str) -> int | None:
        """Return the first place from `first` on at which a text may be cut; None when there is none yet."""
        return next((place for place in range(max(1, first), len(ids)) if self.is_end(ids, place, stop)), None)

    def sentence_start(self, ids: Sequence[int], first: int) -> int:
        """Return the first place from `first` on at which a sentence begins; `first` itself when there is none."""
        for place in range(max(1, first), len(ids)):
            if ids[place] not in self.breaks and (ids[place - 1] in self.breaks or self.is_end(ids, place, "sentence")):
                return place
        return first


def single_ids(tokenizer: NovelTokenizer, characters: str) -> set[int]:
    """Return the ids of those characters that are one token each."""
    encoded = [tokenizer.encode(character) for character in characters]
    return {int(ids[0]) for ids in encoded if len(ids) == 1}


def find_loop(ids: Sequence[int]) -> int | None:
    """Return where to cut a text that ends in a loop, after the loop's first round; None when it does not.

    >>> find_loop([9, 8] + [1, 2, 3] * 20)
    5
    >>> find_loop(list(range(100))) is None
    True
    """
    tail = np.asarray(ids[-LOOP_TIMES * LONGEST_PERIOD - LOOP_STEP :])
    for period in range(1, min(LONGEST_PERIOD, len(tail) // LOOP_TIMES) + 1):
        if tail[-1] != tail[-1 - period]:
            continue
        different = np.flatnonzero(tail[period:] != tail[:-period])
        run = len(tail) - (int(different[-1]) + 1 if len(different) else 0)  # tokens of the loop seen
        if run >= max(SHORTEST_LOOP, LOOP_TIMES * period):
            return len(ids) - run + period
    return None
