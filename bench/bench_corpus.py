"""Time the way from a novel's bytes to token ids beside the ways of others, in one run on one core.

    python bench/bench_corpus.py
    python bench/bench_corpus.py --megabytes 4 --rounds 1

The bundled novel is repeated up to 16 MB of UTF-8. All competitors take turns; counted is each one's best round in
processor seconds, which neighbours on the machine do not change. Slow ones get a part of the text, for the measure
is MB/s. `wordpiece` gives BERT's ids, which is checked here against the Rust tokenizer on that part. The last
line is JSON.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every competitor has one core
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 (after the path)
import tokenizers  # noqa: E402
from tokenizers import BertWordPieceTokenizer  # noqa: E402

from novelgpt.corpus.books import CleanBook, CleaningOptions  # noqa: E402
from novelgpt.corpus.encodings import decode_bytes  # noqa: E402
from novelgpt.corpus.pieces import open_pieces, write_pieces  # noqa: E402
from novelgpt.corpus.tokenizers import load_tokenizer  # noqa: E402
from novelgpt.corpus.tokenizers.vocabulary import MARKS  # noqa: E402
from novelgpt.corpus.tokenizers.wordpiece import WordPieceTokenizer  # noqa: E402

LATIN = "abcdefghijklmnopqrstuvwxyz0123456789"
SHARES = {"hf fast BERT": 8, "python BERT": 16}  # these get one part in so many of the text


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=16, help="size of the text in UTF-8")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def repeat_novel(num_bytes: int) -> str:
    """Return the bundled novel as found, decoded, over and over up to a size in UTF-8."""
    text = decode_bytes((ROOT / "data/sample/novel.txt").read_bytes()).text
    return text * max(1, num_bytes // len(text.encode()))


def bert_tokens(text: str) -> list[str]:
    """Make a WordPiece vocabulary that knows the characters of a text."""
    single = sorted({char for char in text if unicodedata.category(char)[0] in "LPS" and char > "\x7f"})
    ascii_signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    return [*MARKS, *ascii_signs, *("##" + char for char in LATIN), *single]


def python_bert(tokens: list[str]) -> Callable[[str], list[int]]:
    """Return a plain Python BERT tokenizer: clean, lower case, split, longest match first."""
    ids = {token: index for index, token in enumerate(tokens)}

    def words(line: str):
        word = ""
        for char in unicodedata.normalize("NFD", line.lower()):
            kind = unicodedata.category(char)
            if "\u4e00" <= char <= "\u9fff" or kind[0] == "P" or char in "$+<=>^`|~" or char.isspace():
                if word:
                    yield word
                word = ""
                if not char.isspace():
                    yield char
            elif kind != "Mn" and kind[0] != "C":
                word += char
        if word:
            yield word

    def pieces(word: str) -> list[int]:
        start, found = 0, []
        while start < len(word):
            for stop in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:stop]
                if piece in ids:
                    found.append(ids[piece])
                    start = stop
                    break
            else:
                return [ids["[UNK]"]]
        return found

    return lambda text: [index for line in text.split("\n") for word in words(line) for index in pieces(word)]


def clean(data: bytes) -> list[str]:
    """Decode, clean and split into chapters, as clr_ctrl.py does."""
    return CleanBook("bench", CleaningOptions()).prepare([decode_bytes(data).text], single=True).documents


def tokenize(documents: list[str], folder: Path) -> dict:
    """Encode chapters and write their pieces, as tokenize_corpus.py does."""
    tokenizer = load_tokenizer(ROOT / "cache/vocab_small.txt")
    facts = {"path": "bench", "sha256": ""}
    return write_pieces(documents, tokenizer, folder, source=facts, vocabulary=facts)


def write_numbers(ids: np.ndarray, path: Path) -> None:
    """Write ids as decimal numbers with blanks between, as GPT2-Chinese does."""
    path.write_text(" ".join(map(str, ids.tolist())))


def read_numbers(path: Path) -> np.ndarray:
    """Read such a file."""
    return np.array([int(number) for number in path.read_text().split()])


def new_competitors(text: str, folder: Path) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return what is timed: a name, the bytes of UTF-8 it works on, and the call."""
    character = load_tokenizer(ROOT / "cache/vocab_small.txt")
    tokens = bert_tokens(text)
    wordpiece = WordPieceTokenizer(tokens)
    rust = BertWordPieceTokenizer({token: index for index, token in enumerate(tokens)})
    plain = python_bert(tokens)
    parts = {name: text[: len(text) // share] for name, share in SHARES.items()}
    check_ids(parts["hf fast BERT"], wordpiece, rust)
    data, ids = text.encode(), character.encode(text)
    documents = clean(data)
    write_numbers(ids, folder / "numbers.txt")
    np.save(folder / "ids.npy", ids)
    size = len(data)
    return {
        "clean": (size, lambda: clean(data)),
        "tokenize": (size, lambda: tokenize(documents, folder / "pieces")),
        "character": (size, lambda: character.encode(text)),
        "wordpiece": (size, lambda: wordpiece.encode(text)),
        "wordpiece, first time": (size, lambda: WordPieceTokenizer(tokens).encode(text)),
        "hf fast BERT": (len(parts["hf fast BERT"].encode()), lambda: rust_ids(rust, parts["hf fast BERT"])),
        "python BERT": (len(parts["python BERT"].encode()), lambda: plain(parts["python BERT"])),
        "write numbers": (size, lambda: write_numbers(ids, folder / "numbers.txt")),
        "write npy": (size, lambda: np.save(folder / "ids.npy", ids)),
        "read numbers": (size, lambda: read_numbers(folder / "numbers.txt")),
        "read npy": (size, lambda: np.load(folder / "ids.npy", mmap_mode="r").copy()),
        "open pieces": (size, lambda: open_pieces(folder / "pieces").train.read()),
    }


def rust_ids(rust: BertWordPieceTokenizer, text: str) -> list[list[int]]:
    """Encode every line with the Rust tokenizer, the quickest way it offers."""
    lines = text.split("\n")
    return [encoding.ids for encoding in rust._tokenizer.encode_batch_fast(lines, add_special_tokens=False)]


def check_ids(text: str, wordpiece: WordPieceTokenizer, rust: BertWordPieceTokenizer) -> None:
    """Make sure that the fast way and the Rust tokenizer agree on every id."""
    ours = wordpiece.encode(text)
    theirs = [index for line in rust_ids(rust, text) for index in [*line, wordpiece.sep_id]][:-1]
    assert ours.tolist() == theirs, "WordPiece ids differ from those of the tokenizers library"


def main() -> int:
    """Time everything, print a table and one line of JSON."""
    options = build_parser().parse_args()
    text = repeat_novel(options.megabytes * 10**6)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        competitors = new_competitors(text, Path(name))
        for _ in range(options.rounds):
            for label, (_, call) in competitors.items():
                start = time.process_time()
                call()
                seconds.setdefault(label, []).append(time.process_time() - start)
    best = {label: min(times) for label, times in seconds.items()}
    speed = {label: size / 10**6 / best[label] for label, (size, _) in competitors.items()}
    print(f"{len(text.encode()) / 10**6:.1f} MB of UTF-8, {len(text):,} characters, one core, {options.rounds} rounds")
    for label, rate in speed.items():
        print(f"{label:22} {best[label]:9.4f} CPU s {rate:9.1f} MB/s")
    result = {
        "bench": "corpus",
        "bytes": len(text.encode()),
        "seconds": {label: round(value, 5) for label, value in best.items()},
        "megabytes_per_second": {label: round(value, 1) for label, value in speed.items()},
        "clean_and_tokenize_seconds": round(best["clean"] + best["tokenize"], 3),
        "ratios": {
            "character over hf fast BERT": round(speed["character"] / speed["hf fast BERT"], 1),
            "character over python BERT": round(speed["character"] / speed["python BERT"], 1),
            "wordpiece over hf fast BERT": round(speed["wordpiece"] / speed["hf fast BERT"], 1),
            "read npy over read numbers": round(speed["read npy"] / speed["read numbers"], 1),
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "processor": platform.processor() or platform.machine(),
    }
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
