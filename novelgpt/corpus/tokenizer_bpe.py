"""The subword tokenizer: tokens of several characters learned from a corpus, the rest as its bytes. Loses nothing.

Words of a novel (names, idioms, "……”") become one token each, so a window of the model holds more text. ASCII and the
newline always are byte tokens, and a merged token lies wholly within Han characters or wholly within the rest.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from novelgpt.corpus.export import export_folder, new_byte_backend, new_splitter
from novelgpt.corpus.tokens import (
    ByteStream,
    add_names,
    check_ids,
    code_points,
    drop_leading,
    encode_with_marks,
    find_marks,
    fingerprint_of,
    id_dtype,
    shown_bytes,
    token_bytes,
)
from novelgpt.corpus.vocabulary import count_characters, frame, is_character_token
from novelgpt.messages import EXIT_USAGE, UserError

BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


class BpeTokenizer:
    """Text <-> ids of a subword vocabulary; the attributes and methods are those of CharacterTokenizer.

    Args:
        tokens: the vocabulary with its marks and all 256 byte tokens; the place is the id.
        merges: pairs of tokens that become one, in the order in which they were learned.
    """

    kind = "bpe"

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]):
        self.tokens, self.merges = list(tokens), [tuple(pair) for pair in merges]
        self.vocab_size = len(self.tokens)
        self.dtype = id_dtype(self.vocab_size)
        self.marks = find_marks(self.tokens)
        self.pad_id, self.unk_id, self.cls_id = (self.marks[name] for name in ("[PAD]", "[UNK]", "[CLS]"))
        self.sep_id, self.mask_id = self.marks["[SEP]"], self.marks["[MASK]"]
        self.newline_id = self.tokens.index("<0x0A>")
        self.fingerprint = fingerprint_of(self.tokens, self.merges)
        self.reference = new_byte_backend(self.tokens, self.merges, [])
        self.pieces = token_bytes(self.tokens)
        self.shown = shown_bytes(self.pieces, self.tokens, self.marks)

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,), line by line, for no token crosses a newline.

        Raises:
            UserError: a lone surrogate, which is no character; the message names its place.
        """
        code_points(text, 0, len(text))  # raises at a lone surrogate
        ids: list[int] = []
        for line in text.split("\n"):
            ids += self.reference.encode(line).ids
            ids.append(self.newline_id)
        return np.array(ids[:-1], self.dtype)

    def encode_prefix(self, text: str) -> np.ndarray:
        """Turn a prefix into ids (N,): marks are parsed, and [CLS] stands in front whether typed or not."""
        return encode_with_marks(text, self.marks, self.encode, self.cls_id)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids back into text, marks as their names; bytes that form no character become U+FFFD."""
        pieces = self.pieces
        return b"".join([pieces[index] for index in check_ids(ids, self.vocab_size)]).decode("utf-8", "replace")

    def show(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids into text for people: [CLS] a blank line but at the beginning, [SEP] a line break, no other mark."""
        kept = drop_leading(check_ids(ids, self.vocab_size), self.cls_id)
        return b"".join([self.shown[index] for index in kept]).decode("utf-8", "replace")

    def stream(self) -> ByteStream:
        """Return an object whose push(token_id) yields text as `show` writes it, whole characters only."""
        return ByteStream(self.shown)

    def add_tokens(self, names: Iterable[str]) -> "BpeTokenizer":
        """Return a tokenizer with further marks, in reserved [unusedN] places first, else at the end."""
        return BpeTokenizer(add_names(self.tokens, names), self.merges)

    def export(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, which AutoTokenizer loads."""
        backend = new_byte_backend(self.tokens, self.merges, self.marks)
        export_folder(folder, backend, self.tokens, model_max_length=model_max_length)


def train_bpe(texts: Sequence[str], *, vocab_size: int, min_count: int = 1, reserved: int = 20) -> BpeTokenizer:
    """Learn a subword vocabulary from texts.

    Args:
        texts: documents.
        vocab_size: at most this many tokens, all characters of the texts among them.
        min_count: leave characters that occur less often to their bytes.
        reserved: how many [unusedN] tokens to keep free for added tokens.

    Raises:
        UserError: vocab_size leaves no room for the characters.
    """
    from tokenizers import Tokenizer, models, trainers

    counts = count_characters(texts)
    kept = {char for char, count in counts.items() if count >= min_count and is_character_token(char)}
    start = frame(reserved)
    if vocab_size < len(start) + len(kept):
        message = (
            f"--vocab_size: found {vocab_size}, expected more than {len(start) + len(kept)} "
            f"({len(start)} marks, reserved and bytes, {len(kept)} characters)"
        )
        raise UserError(message, "raise --vocab_size or --min_count", EXIT_USAGE)
    rare = {ord(char): " " for char in counts.keys() - kept}
    runs = (run for text in texts for run in BEYOND_ASCII.findall(text.translate(rare)))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = new_splitter()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=start, show_progress=False, max_token_length=8
    )
    learner.train_from_iterator(runs, trainer)
    model = json.loads(learner.to_str())["model"]
    return BpeTokenizer(sorted(model["vocab"], key=model["vocab"].get), [tuple(pair) for pair in model["merges"]])
