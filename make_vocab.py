"""Build the vocabulary of a novel, and say how well it fits.

python make_vocab.py
python make_vocab.py --kind bpe --vocab_size 13317 --vocab_file cache/bpe_novel
"""

import argparse
from collections.abc import Sequence

from novelgpt.cli import new_parser, parse_options, run, whole

DEFAULT_FILES = {"character": "cache/vocab_novel.txt", "bpe": "cache/bpe_novel"}
WIDTH = 768  # of the embedding in config/model_config_small.json
SMALL_FILE = "cache/vocab_small.txt"


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = new_parser(__doc__)
    parser.add_argument("--raw_data_path", default="data/train.json", help="the cleaned chapters")
    parser.add_argument(
        "--vocab_file",
        help=f"file to write (default {DEFAULT_FILES['character']}); for bpe a folder (default {DEFAULT_FILES['bpe']})",
    )
    parser.add_argument(
        "--kind", choices=sorted(DEFAULT_FILES), default="character", help="one token a character, or subwords"
    )
    parser.add_argument("--vocab_size", type=whole(1, 10**6), help="at most this many tokens (bpe: 13317 unless given)")
    parser.add_argument("--min_count", type=whole(1), default=1, help="rarer characters are left to their bytes")
    parser.add_argument("--reserved", type=whole(0, 10**5), default=20, help="free [unusedN] tokens for later marks")
    parser.add_argument("--small", action="store_true", help=f"rebuild {SMALL_FILE}, which fits any Chinese novel")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build the vocabulary that the command line asks for."""
    options = parse_options(build_parser(), argv, section="vocabulary")
    from novelgpt.corpus.pipeline import read_corpus
    from novelgpt.corpus.tokenizers import fit_vocabulary, write_small_vocabulary

    if options.small:
        write_small_vocabulary(options.vocab_file or SMALL_FILE)
        return 0
    report = fit_vocabulary(
        read_corpus(options.raw_data_path),
        options.vocab_file or DEFAULT_FILES[options.kind],
        kind=options.kind,
        vocab_size=options.vocab_size,
        min_count=options.min_count,
        reserved=options.reserved,
        width=WIDTH,
    )
    print(report)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
