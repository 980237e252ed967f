"""What every tokenizer does: text -> ids, ids -> text for machines and for people, documents -> one framed stream.

A subclass says how plain text is encoded; everything else is here::

    "萧炎"        ─encode→         萧 炎                  names of marks are plain text
    "[TIL]萧"     ─encode_document→ [TIL] 萧               added tokens are tokens, [CLS] is text
    "萧[SEP]"     ─encode_prefix→  [CLS] 萧 [SEP]          every mark is parsed, [CLS] stands in front
    two documents ─frame→          [CLS] 萧 炎 [CLS] 药 老 [CLS]

On disk a tokenizer is one of these, and what `export` writes is read offline by Transformers 4 and 5 without our code::

    vocab.txt with the byte tokens <0x00> to <0xFF>   character
    vocab.txt without them                            wordpiece
    tokenizer.json                                    wordpiece, or bpe if it has merges, else character
"""

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path

import numpy as np

from novelgpt.corpus.tokenizers.vocabulary import (
    BYTE_TOKENS,
    HINT,
    MARKS,
    MAX_LINES,
    UNUSED,
    Listing,
    add_names,
    check_characters,
    find_marks,
    load_vocabulary,
    order_tokens,
    pad_tokens,
    parse_whole,
    split_names,
    warn_of_settings,
)
from novelgpt.files import read_json, ready_file, write_json, write_text
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError

CODE_POINTS = 0x110000  # of Unicode
BYTES = {token: bytes([byte]) for byte, token in enumerate(BYTE_TOKENS)}
SHOWN = {"[CLS]": "\n\n", "[SEP]": "\n"}  # what people see of these marks; the others are hidden
HAN_RUNS = r"\p{Han}+"  # a merged token is within Han or within the rest


class ByteStream:
    """Turns token ids into text one at a time, holding bytes back until a character is whole.

    >>> stream = ByteStream([b"\\xe7", b"\\x82", b"\\x8e", b"!"])
    >>> [stream.push(token_id) for token_id in (0, 1, 2, 3)]
    ['', '', '炎', '!']
    """

    def __init__(self, parts: Sequence[bytes]):
        self.parts = parts  # the bytes of each token
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Take the next token and return the characters that are whole now; broken bytes become U+FFFD."""
        return self.decoder.decode(self.parts[token_id])

    def flush(self) -> str:
        """Return U+FFFD for a character that never became whole, else nothing."""
        return self.decoder.decode(b"", final=True)


class NovelTokenizer:
    """Text <-> token ids: the base class of CharacterTokenizer, BpeTokenizer and WordPieceTokenizer.

    Args:
        tokens: the vocabulary with its five marks; the place is the id.
        details: pairs of strings on which the ids depend too, such as merges; part of the fingerprint.

    Attributes:
        tokens, vocab_size, dtype: the vocabulary, its size, uint16 or uint32.
        cls_id, pad_id, unk_id, sep_id, mask_id, newline_id: ids of single tokens.
        marks: names and ids of marks and added tokens.
        reserved: ids of the free [unusedN] tokens.
        byte_ids: ids of the byte tokens (256,), or (0,) where the vocabulary has none.
        parts, shown: what each token adds to a text, for machines and for people.
        fingerprint: SHA-256 of the vocabulary in hexadecimal.

    Example::

        tokenizer = NovelTokenizer.from_file("model/final_model")
        ids = tokenizer.encode("那天夜里没有月亮。")  # (9,) uint16
        assert tokenizer.decode(ids) == "那天夜里没有月亮。"

    >>> tokenizer = NovelTokenizer.from_texts(["萧炎大喝一声"])
    >>> tokenizer.decode(tokenizer.encode("萧薰儿\\n")) == "萧薰儿\\n"
    True
    """

    kind: str  # "character" or "bpe" (lossless), "wordpiece" (BERT's, lossy)
    merges: Sequence[tuple[str, str]] = ()  # pairs of tokens that become one, in their order; of "bpe" only

    def __init__(self, tokens: Sequence[str], details: Sequence[tuple[str, str]] = ()):
        self.tokens = list(tokens)
        self.vocab_size = len(self.tokens)
        self.dtype = np.uint16 if self.vocab_size < 1 << 16 else np.uint32  # of every array of ids
        lines = [*self.tokens, *(f"{left} {right}" for left, right in details)]
        self.fingerprint = hashlib.sha256("".join(line + "\n" for line in lines).encode("utf-8")).hexdigest()
        # tokens with a meaning of their own
        self.marks = find_marks(self.tokens)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (self.marks[name] for name in MARKS)
        self.reserved = [index for index, token in enumerate(self.tokens) if UNUSED.fullmatch(token)]
        ids = {token: index for index, token in enumerate(self.tokens)}
        self.byte_ids = np.array([ids[token] for token in BYTE_TOKENS if token in ids], self.dtype)  # (256,) or (0,)
        self.newline_id = ids.get("<0x0A>", self.sep_id)
        # the text of every token, so that decoding only has to join
        self.parts = [self.part(token) for token in self.tokens]
        shown = dict.fromkeys(self.reserved, "") | {index: SHOWN.get(name, "") for name, index in self.marks.items()}
        self.shown = [self.part(shown.get(index, token)) for index, token in enumerate(self.tokens)]

    @staticmethod
    def from_file(path: str | Path, *, size: int | None = None, add_tokens: str | None = None) -> "NovelTokenizer":
        """Load the tokenizer of a vocabulary file, a tokenizer.json or a model folder.

        Args:
            path: a vocabulary file, a tokenizer.json, or a folder that holds either.
            size: append reserved tokens up to this number, since an embedding may have more rows than the list has
                tokens; 0 appends none, None takes the number from a model folder's config.json.
            add_tokens: names of further marks, separated by commas.

        Raises:
            UserError: nothing there, not a vocabulary, an unknown kind of tokenizer, a folder whose tokenizer.json and
                vocab.txt do not agree, or a name that cannot be added.
        """
        listing = read_vocabulary(Path(ready_file(path)), size)
        tokens = add_names(listing.tokens, split_names(add_tokens))
        return find_kind(listing.kind)(tokens, **listing.details)

    @staticmethod
    def from_texts(texts: Sequence[str], *, kind: str = "character", **sizes: int | None) -> "NovelTokenizer":
        """Fit a tokenizer to documents.

        Args:
            texts: documents.
            kind: "character" or "bpe".
            sizes: vocab_size, at most this many tokens, None takes every character, or 8,000 subwords; min_count (1),
                characters that occur less often are written as bytes; reserved (20), how many [unusedN] tokens to keep
                free for added tokens.

        Raises:
            UserError: another kind, or vocab_size leaves no room.
        """
        if kind not in ("character", "bpe"):
            raise UserError(f"kind: found {kind!r}, expected 'character' or 'bpe'", 'kind="character"', EXIT_USAGE)
        return find_kind(kind).fit(texts, **sizes)

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,) of the tokenizer's dtype; names of marks in it are text like any other.

        Raises:
            UserError: a lone surrogate, which is no character; the message names its place.
        """
        raise NotImplementedError

    def encode_prefix(self, text: str) -> np.ndarray:
        """Turn a prefix into ids (N,): marks are parsed, and [CLS] comes first, whether typed or not.

        >>> tokenizer = NovelTokenizer.from_texts(["萧炎"])
        >>> tokenizer.encode_prefix("萧炎").tolist() == tokenizer.encode_prefix("[CLS]萧炎").tolist() == [2, 282, 281]
        True
        """
        ids = self.encode_marked(text, self.marks)
        return ids if len(ids) and ids[0] == self.cls_id else self.begin(ids)

    def encode_document(self, text: str) -> np.ndarray:
        """Turn a document into ids (N,): added tokens such as [TIL] are parsed, the five marks are text.

        >>> tokenizer = NovelTokenizer.from_texts(["萧炎"]).add_tokens(["[TIL]"])
        >>> tokenizer.encode_document("萧[TIL]").tolist(), len(tokenizer.encode_document("[CLS]"))
        ([282, 5], 5)
        """
        return self.encode_marked(text, {name: index for name, index in self.marks.items() if name not in MARKS})

    def encode_marked(self, text: str, marks: Mapping[str, int]) -> np.ndarray:
        """Turn a text into ids (N,), with some of the marks parsed."""
        names = sorted((name for name in marks if name in text), key=len, reverse=True)  # [ab]c] before [ab]
        parts = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        # every second part is a mark, the others are text
        encoded = [
            np.array([marks[part]], self.dtype) if place % 2 else self.encode(part) for place, part in enumerate(parts)
        ]
        return encoded[0] if len(encoded) == 1 else np.concatenate(encoded)

    def count_outside(self, ids: np.ndarray) -> int:
        """Count the characters in ids (N,) that the vocabulary lacks: spelled as bytes beyond ASCII, or [UNK]."""
        first = self.byte_ids[0xC2:] if len(self.byte_ids) else self.unk_id  # of the bytes of each character
        return int(np.isin(ids, first).sum())

    def begin(self, ids: np.ndarray) -> np.ndarray:
        """Put [CLS] in front of the ids (N,) of a document whose end is still to be written; return (N + 1,)."""
        return np.concatenate([np.array([self.cls_id], self.dtype), ids])

    def frame(self, documents: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield documents as every stream, row and scored text has them: [CLS] before each and after the last one.

        Args:
            documents: ids (N,) of each, at most one held at a time.

        >>> tokenizer = NovelTokenizer.from_texts(["萧炎"])
        >>> [part.tolist() for part in tokenizer.frame([tokenizer.encode("炎"), tokenizer.encode("萧")])]
        [[2], [281], [2], [282], [2]]
        """
        mark = self.begin(np.empty(0, self.dtype))  # (1,): beginning, separator and end are the same token
        for ids in documents:
            yield mark
            yield ids
        yield mark

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids (N,) back into text, marks as their names; bytes that form no character become U+FFFD.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        return self.join([self.parts[index] for index in check_ids(ids, self.vocab_size)])

    def show(self, ids: Sequence[int] | np.ndarray) -> str:
        """Turn ids (N,) into text for people: [CLS] is a blank line (none at the beginning), [SEP] a line break."""
        kept = dropwhile(lambda index: index == self.cls_id, check_ids(ids, self.vocab_size))
        return self.join_shown([self.shown[index] for index in kept])

    def stream(self):
        """Return an object whose push(token_id) yields text as `show` writes it, whole characters only."""
        return ByteStream(self.shown)

    def part(self, token: str) -> bytes | str:
        """Return what a token adds to a text: a byte token its byte, any other its name."""
        return BYTES.get(token) or token.encode("utf-8")

    def join(self, parts: Sequence) -> str:
        """Join the parts of a text that tokens stand for."""
        return b"".join(parts).decode("utf-8", "replace")

    def join_shown(self, parts: Sequence) -> str:
        """Join them for people: a piece of a character at the end is left out."""
        return codecs.utf_8_decode(b"".join(parts), "replace", False)[0]

    def add_tokens(self, names: Iterable[str]) -> "NovelTokenizer":
        """Return a tokenizer with further marks such as "[TIL]", in reserved [unusedN] places first, then at the end.

        Raises:
            UserError: a name that is not two or more characters in brackets.
        """
        return self.with_tokens(add_names(self.tokens, names))

    def with_tokens(self, tokens: Sequence[str]) -> "NovelTokenizer":
        """Return a tokenizer like this one with another vocabulary."""
        return type(self)(tokens)

    def export(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write tokenizer.json, tokenizer_config.json and vocab.txt, which AutoTokenizer loads.

        Args:
            folder: made if missing; other files in it stay.
            model_max_length: the model's context in tokens; None, where there is no model, leaves it out.
        """
        special = {"bos": "[CLS]", "eos": "[CLS]", "pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "mask": "[MASK]"}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # the name that Transformers 4 and 5 both know
            "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 would add token_type_ids to its input
            **{f"{name}_token": mark for name, mark in special.items()},
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": False,
            **({} if model_max_length is None else {"model_max_length": model_max_length}),
        }
        write_text(Path(folder) / "tokenizer.json", self.new_backend(self.marks).to_str(pretty=True))
        write_json(Path(folder) / "tokenizer_config.json", config)
        save_vocabulary(Path(folder) / "vocab.txt", self.tokens)

    def new_backend(self, marks: Iterable[str]):
        """Return the tokenizers.Tokenizer of the vocabulary: BPE with byte fallback, here without merges.

        Args:
            marks: names that are parsed as marks, unless the reader splits special tokens.
        """
        from tokenizers import AddedToken, Tokenizer, decoders, models

        # no post-processor: [CLS] and [SEP] around a prompt would end the text
        ids = {token: index for index, token in enumerate(self.tokens)}
        model = models.BPE(ids, list(self.merges), unk_token="[UNK]", byte_fallback=True, fuse_unk=False)
        backend = Tokenizer(model)
        if self.merges:  # without them every character stands for itself, however the text is split
            backend.pre_tokenizer = new_splitter()
        backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in marks])
        return backend


def new_splitter():
    """Return the pre-tokenizer that keeps Han characters apart from all others."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(HAN_RUNS), "isolated")


def find_kind(kind: str) -> type[NovelTokenizer]:
    """Return the class of a kind."""
    # the package has imported every kind before anyone can ask, so none is missing
    return next(found for found in NovelTokenizer.__subclasses__() if found.kind == kind)


def code_points(text: str, start: int, stop: int) -> np.ndarray:
    """Return the code points of a stretch of a text, uint32 (stop - start,); UserError as of encode."""
    try:
        return np.frombuffer(text[start:stop].encode("utf-32-le"), "<u4")
    except UnicodeEncodeError as problem:
        place = start + problem.start
        message = f"character {place:,} of the text is the lone surrogate U+{ord(text[place]):04X}"
        raise UserError(message, "clean the text first: python clr_ctrl.py") from problem


def check_ids(ids: Sequence[int] | np.ndarray, vocab_size: int) -> list[int]:
    """Return ids as a list of Python integers; ValueError for one outside the vocabulary."""
    array = np.asarray(ids, dtype=np.int64).reshape(-1)
    if len(array) and not 0 <= array.min() <= array.max() < vocab_size:
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"token id {wrong}, expected 0 to {vocab_size - 1}")
    return array.tolist()


def read_vocabulary(path: Path, size: int | None) -> Listing:
    """Read a vocabulary file, a tokenizer.json or a model folder; see NovelTokenizer.from_file."""
    if path.is_dir():
        return read_folder(path, folder_size(path) if size is None else size)
    if path.suffix == ".json":
        return parse_whole(path, read_json(path, code=EXIT_INPUT), size or 0)
    return read_plain(path, pad_tokens(load_vocabulary(path), size or 0))


def read_folder(folder: Path, size: int) -> Listing:
    """Read what a model folder holds: tokenizer.json, or vocab.txt with the added_tokens.json of older tools."""
    whole, plain = folder / "tokenizer.json", folder / "vocab.txt"
    # tokenizer.json decides, since it knows merges and case; the list beside it must agree
    tokens = load_vocabulary(plain) if plain.exists() else []
    if whole.exists():
        listing = parse_whole(whole, read_json(whole, code=EXIT_INPUT), size)
        if tokens != listing.tokens[: len(tokens)]:
            message = f"{folder}: tokenizer.json and vocab.txt do not hold the same tokens"
            raise UserError(message, "delete the wrong one")
        return listing
    # older folders hold a plain list, and what was added later in a file of its own
    if tokens:
        return read_plain(plain, pad_tokens(with_added(folder / "added_tokens.json", tokens), size))
    raise UserError(f"{folder}: neither tokenizer.json nor vocab.txt", HINT)


def has_vocabulary(folder: str | Path) -> bool:
    """Tell whether a model folder holds a vocabulary of its own; those of GPT2-Chinese do not."""
    return any((Path(folder) / name).exists() for name in ("tokenizer.json", "vocab.txt"))


def read_settings(path: Path) -> dict:
    """Read a JSON object that may be missing; anything else counts as empty."""
    value = read_json(path, code=EXIT_INPUT) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def folder_size(folder: Path) -> int:
    """Return the number of embedding rows that a model folder's config.json gives, or 0 if it gives none."""
    size = read_settings(folder / "config.json").get("vocab_size")
    return size if isinstance(size, int) and size <= MAX_LINES else 0


def with_added(path: Path, tokens: list[str]) -> list[str]:
    """Append the tokens of an added_tokens.json, such as `{"[TIL]": 21128}`, to a plain list."""
    added = read_json(path, code=EXIT_INPUT) if path.exists() else {}
    try:
        return order_tokens({**{token: index for index, token in enumerate(tokens)}, **added})
    except (TypeError, ValueError) as problem:
        message = f"{path}: its ids do not continue after the {len(tokens):,} tokens of vocab.txt"
        raise UserError(message, "put back the vocab.txt that belongs to it") from problem


def read_plain(path: Path, tokens: list[str]) -> Listing:
    """Tell the kind of a plain list: character if it has byte tokens, else BERT's WordPiece."""
    if BYTE_TOKENS[0] in tokens:  # one is enough: check_marks has seen all or none
        check_characters(path, tokens)
        return Listing("character", tokens, {})
    # the tokenizer_config.json beside it may say that the model keeps case
    config_path = path.parent / "tokenizer_config.json"
    config = read_settings(config_path)
    lowercase = config.get("do_lower_case") is not False
    warn_of_settings(config_path, config, lowercase)
    return Listing("wordpiece", tokens, {"lowercase": lowercase})


def save_vocabulary(path: str | Path, tokens: Sequence[str]) -> None:
    """Write a vocabulary file atomically, one token a line."""
    write_text(path, "\n".join(tokens) + "\n")
