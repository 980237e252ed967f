"""Build the vocabulary of a novel, and say how well it fits.

python make_vocab.py
python make_vocab.py --kind bpe --vocab_size 13317 --vocab_file cache/bpe_novel
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import Parser, VocabularyOptions
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, shown

DEFAULT_FILES = {"character": "cache/vocab_novel.txt", "bpe": "cache/bpe_novel"}
WIDTH = 768  # of the embedding in config/model_config_small.json
SMALL_FILE = "cache/vocab_small.txt"


def build_parser() -> Parser[VocabularyOptions]:
    """Return the command line of make_vocab.py."""
    return Parser(VocabularyOptions, __doc__, section="vocabulary", prog="make_vocab.py")


def check_cleaned(options: VocabularyOptions) -> None:
    """Refuse to begin where clr_ctrl.py has not yet written the chapters."""
    places = {"data/train.json": "", f"books/{options.book}/train.json": f" --book {shlex.quote(options.book or '')}"}
    path = options.raw_data_path
    if path in places and not Path(path).exists():
        message = f"{path}: no such file, expected the chapters of a novel"
        raise UserError(message, f"python clr_ctrl.py NOVEL.txt{places[path]}", EXIT_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the vocabulary that the command line asks for."""
    options = build_parser().parse_options(argv)
    if options.book and options.kind == "bpe" and options.vocab_file == f"books/{options.book}/vocab.txt":
        folder = f"books/{options.book}/bpe"
        hint = f"--vocab_file {shlex.quote(folder)}, then --tokenizer_path {shlex.quote(folder)} for the other scripts"
        raise UserError("--kind bpe: makes a folder, and --book a file, vocab.txt", hint, EXIT_USAGE)
    from novelgpt.corpus.documents import read_corpus
    from novelgpt.corpus.tokenizers import fit_vocabulary, write_small_vocabulary

    if options.small:
        write_small_vocabulary(options.vocab_file or SMALL_FILE)
        return 0
    check_cleaned(options)
    report = fit_vocabulary(
        read_corpus(options.raw_data_path),
        options.vocab_file or DEFAULT_FILES[options.kind],
        kind=options.kind,
        vocab_size=options.vocab_size,
        min_count=options.min_count,
        reserved=options.reserved,
        width=WIDTH,
    )
    print(shown(report))
    return 0
