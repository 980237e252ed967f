"""Tokens as people see them, while they are written: whole characters, and what may be the beginning of a stop."""

from collections.abc import Sequence


class Speller:
    """Tokens -> the characters that are whole with each of them, as people see them.

    What never becomes a character is left out: no text has U+FFFD in it.

    Args:
        tokenizer: the NovelTokenizer of the model.
        before: the ids that the text goes on from.
    """

    def __init__(self, tokenizer, before: Sequence[int]):
        self.stream, self.mark = tokenizer.stream(), tokenizer.cls_id
        self.is_empty = all(token_id == self.mark for token_id in before)  # marks at the beginning show nothing
        if not self.is_empty:
            self.stream.push(before[-1])

    def push(self, token_id: int) -> str:
        """Take the next token and return its characters."""
        if self.is_empty and token_id == self.mark:
            return ""
        self.is_empty = False
        return self.stream.push(token_id).replace("\ufffd", "")


def longest_beginning(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may be the beginning of one of others.

    >>> longest_beginning("他说：完", ["完结", "：完了吗"])
    2
    """
    lengths = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return max(lengths, default=0)
