"""The BERT WordPiece tokenizer of existing Chinese GPT-2 models: BERT's exact ids at the speed of a table. Lossy.

A newline becomes [SEP]; each line becomes what `BertTokenizer(vocab)` makes of it without marks around it: lower case,
no accents, no spaces, [UNK] for what the vocabulary lacks. "[CLS]" in a text is text. The Rust tokenizer is asked once
about every character that stands for itself (Han, punctuation) and once about every distinct run of others (Latin
words, digits, kana)::

    "大喝Hello！\\n" ─table→ 大 喝 run ！ [SEP] ─reference, remembered→ 大 喝 hello ！ [SEP]
"""

from collections.abc import Iterable, Sequence

import numpy as np

from novelgpt.corpus.tokenizers.base import CODE_POINTS, NovelTokenizer, code_points

INNER_SPACE = r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])"  # a space that does not stand between two Latin words
LATIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
CHUNK = 1 << 20  # characters looked up at a time
MAX_RUNS = 1 << 16  # runs remembered before all are forgotten
DROPPED, IN_RUN, UNASKED = -1, -2, -3  # table entries that are not ids


class WordStream:
    """Turns WordPiece ids into text one at a time: `##` joins, and only Latin words get a space between them.

    >>> stream = WordStream(["大", "new", "##s", "\\n"])
    >>> [stream.push(token_id) for token_id in (0, 1, 2, 1, 3)]
    ['大', 'new', 's', ' new', '\\n']
    """

    def __init__(self, parts: Sequence[str]):
        self.parts = parts  # what to write for each token
        self.last = ""

    def push(self, token_id: int) -> str:
        """Take the next token and return the text it adds."""
        part = self.parts[token_id]
        if part.startswith("##") and len(part) > 2:
            text = part[2:]
        else:
            text = " " + part if self.last in LATIN and part[:1] in LATIN else part
        self.last = text[-1:] or self.last
        return text

    def flush(self) -> str:
        """Return what is held back, which is never anything here."""
        return ""


class WordPieceTokenizer(NovelTokenizer):
    """Text <-> ids of a BERT vocabulary.

    Args:
        tokens, lowercase: the vocabulary, and whether the model was trained on lower case, as Chinese BERT ones are.

    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "大", "喝", "a", "##b"])
    >>> tokenizer.encode("大 喝Ab龘\\n").tolist()
    [5, 6, 7, 8, 1, 3]
    >>> tokenizer.decode([5, 6, 7, 8, 7, 3])
    '大喝ab a\\n'
    """

    kind = "wordpiece"

    def __init__(self, tokens: Sequence[str], *, lowercase: bool = True):
        super().__init__(tokens, [("lowercase", str(lowercase))])
        self.newline_id = self.sep_id  # whatever else the list may hold
        self.lowercase = lowercase
        self.reference = self.new_backend([])
        self.table = np.full(CODE_POINTS, UNASKED, np.int32)  # (1114112,)
        self.table[ord("\n")] = self.sep_id
        self.runs: dict[str, np.ndarray] = {}

    def encode(self, text: str) -> np.ndarray:
        """Turn text into ids (N,); newlines become [SEP]."""
        parts, start = [np.empty(0, self.dtype)], 0
        while start < len(text):
            stop = (text.find("\n", start + CHUNK) + 1) or len(text)  # no run crosses a newline
            parts += self.encode_chunk(text, start, stop)
            start = stop
        return np.concatenate(parts).astype(self.dtype, copy=False)

    def encode_chunk(self, text: str, start: int, stop: int) -> list[np.ndarray]:
        """Encode one stretch of a text into arrays to be joined."""
        codes = code_points(text, start, stop)  # (N,)
        entries = self.table[codes]  # (N,)
        # ask the reference about characters not met before
        if (entries == UNASKED).any():
            for code in np.unique(codes[entries == UNASKED]).tolist():
                self.table[code] = self.ask(chr(code))
            entries = self.table[codes]
        # what lies between two borders is a run, to be encoded as a whole
        borders = np.flatnonzero(np.diff(entries == IN_RUN, prepend=False, append=False)).tolist()
        parts, place = [], 0
        for begin, end in zip(borders[::2], borders[1::2], strict=True):
            parts += [entries[place:begin], self.encode_run(text[start + begin : start + end])]
            place = end
        return [part[part != DROPPED].astype(self.dtype) for part in [*parts, entries[place:]]]

    def ask(self, char: str) -> int:
        """Ask the reference what a character becomes: an id of its own, nothing, or part of a run."""
        normal = self.reference.normalizer.normalize_str(f"a{char}a")
        words = [word for word, _ in self.reference.pre_tokenizer.pre_tokenize_str(normal)]
        ids = self.reference.encode(char).ids
        # it stands for itself if letters on both sides stay words of their own
        if len(words) < 2 or words[0] != "a" or words[-1] != "a" or len(ids) > 1:
            return IN_RUN
        return ids[0] if ids else DROPPED

    def encode_run(self, run: str) -> np.ndarray:
        """Encode a run of characters that do not stand for themselves, and remember the answer."""
        if run not in self.runs:
            if len(self.runs) >= MAX_RUNS:
                self.runs.clear()
            self.runs[run] = np.array(self.reference.encode(run).ids, np.int32)
        return self.runs[run]

    def stream(self) -> WordStream:
        """Return an object whose push(token_id) yields text as `show` writes it."""
        return WordStream(self.shown)

    def part(self, token: str) -> str:
        """Return the text of a token: [SEP] is a newline, any other its name, from which WordStream takes the `##`."""
        return "\n" if token == "[SEP]" else token

    def join(self, parts: Sequence[str]) -> str:
        """Join the parts of a text that tokens stand for, with spaces between Latin words only."""
        return "".join(map(WordStream(parts).push, range(len(parts))))

    join_shown = join  # every token is whole

    def with_tokens(self, tokens: Sequence[str]) -> "WordPieceTokenizer":
        """Return a tokenizer of another vocabulary with the same rule for case."""
        return WordPieceTokenizer(tokens, lowercase=self.lowercase)

    def new_backend(self, marks: Iterable[str]):
        """Return the tokenizers.Tokenizer of the vocabulary; without marks it is BERT's for one line of plain text."""
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

        ids = {token: index for index, token in enumerate(self.tokens)}
        backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.normalizer = normalizers.BertNormalizer(lowercase=self.lowercase)
        # with marks newlines become [SEP], so "[SEP]" typed into a prompt is a newline too;
        # [SEP] is not special, so that decoding without special tokens keeps line breaks
        if marks:
            backend.normalizer = normalizers.Sequence([normalizers.Replace("\n", "[SEP]"), backend.normalizer])
            special = [AddedToken(name, special=True, normalized=False) for name in marks if name != "[SEP]"]
            backend.add_special_tokens(special)
            backend.add_tokens([AddedToken("[SEP]", special=False, normalized=True)])
        # join the parts of words, then drop the spaces that do not part Latin words
        backend.decoder = decoders.Sequence(
            [
                decoders.WordPiece("##", cleanup=False),
                decoders.Fuse(),
                decoders.Replace(Regex(r"\[SEP\]|\[sep\]"), "\n"),  # its name is normalized like any text
                decoders.Replace(Regex(INNER_SPACE), ""),
            ]
        )
        return backend
