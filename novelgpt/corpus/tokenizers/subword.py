"""The subword tokenizer: tokens of several characters learned from a corpus, the rest as its bytes. Loses nothing.

Words of a novel (names, idioms, “……”) become one token each, so a window of the model holds more text. ASCII and the
newline are always byte tokens, and a merged token consists of Han characters alone or of others alone.
"""

import json
import re
from collections.abc import Sequence

import numpy as np

from novelgpt.corpus.tokenizers.base import NovelTokenizer, code_points, new_splitter
from novelgpt.corpus.tokenizers.vocabulary import count_characters, first_tokens, is_character_token
from novelgpt.messages import EXIT_USAGE, UserError

BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
NUM_TOKENS = 8_000  # of a vocabulary unless told otherwise
LONGEST = 8  # characters of a merged token


class BpeTokenizer(NovelTokenizer):
    """Text <-> ids of a subword vocabulary.

    Args:
        tokens: the vocabulary with its marks and all 256 byte tokens; the place is the id.
        merges: pairs of tokens that become one, in the order in which they were learned.
    """

    kind = "bpe"

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]):
        self.merges = [tuple(pair) for pair in merges]
        super().__init__(tokens, self.merges)
        self.reference = self.new_backend([])

    @classmethod
    def fit(
        cls, texts: Sequence[str], *, vocab_size: int | None = None, min_count: int = 1, reserved: int = 20
    ) -> "BpeTokenizer":
        """Learn a subword vocabulary from texts; see NovelTokenizer.from_texts."""
        from tokenizers import Tokenizer, models, trainers

        # what has a token from the start, and whether there is room for all of it
        counts, vocab_size = count_characters(texts), vocab_size or NUM_TOKENS
        kept = {char for char, count in counts.items() if count >= min_count and is_character_token(char)}
        start = first_tokens(reserved)
        least = len(start) + len(kept)
        if vocab_size < least:
            parts = f"({len(start)} marks, reserved and bytes, {len(kept)} characters)"
            message = f"--vocab_size: found {vocab_size}, expected more than {least} {parts}"
            raise UserError(message, "raise --vocab_size or --min_count", EXIT_USAGE)
        # learn merges from runs beyond ASCII; a rare character ends a run, so that no merge crosses it
        rare = {ord(char): " " for char in counts.keys() - kept}
        runs = (run for text in texts for run in BEYOND_ASCII.findall(text.translate(rare)))
        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = new_splitter()
        sizes = {"vocab_size": vocab_size, "min_frequency": 2, "max_token_length": LONGEST}
        learner.train_from_iterator(runs, trainers.BpeTrainer(special_tokens=start, show_progress=False, **sizes))
        # the learner's ids follow the order of its lists: first tokens, characters, merges
        model = json.loads(learner.to_str())["model"]
        return cls(sorted(model["vocab"], key=model["vocab"].get), model["merges"])

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,), line by line, for no token crosses a newline."""
        code_points(text, 0, len(text))  # raises at a lone surrogate
        ids: list[int] = []
        for line in text.split("\n"):
            ids += self.reference.encode(line).ids
            ids.append(self.newline_id)
        return np.array(ids[:-1], self.dtype)  # (N,), without the newline after the last line

    def with_tokens(self, tokens: Sequence[str]) -> "BpeTokenizer":
        """Return a tokenizer with the same merges."""
        return BpeTokenizer(tokens, self.merges)
