"""Turn cleaned chapters into numbered files of token ids, which train.py reads.

python tokenize_corpus.py
python tokenize_corpus.py --raw_data_path data/train.json --tokenizer_path cache/vocab_novel.txt --num_pieces 10
"""

import argparse
from collections.abc import Sequence

from novelgpt.cli import new_parser, parse_options, real, run, whole
from novelgpt.corpus.vocabulary import token_names


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = new_parser(__doc__)
    parser.add_argument("--raw_data_path", default="data/train.json", help="the cleaned chapters")
    parser.add_argument("--tokenized_data_path", default="data/tokenized/", help="folder of the pieces")
    parser.add_argument("--tokenizer_path", default="cache/vocab_small.txt", help="vocabulary file, or folder with one")
    parser.add_argument("--num_pieces", type=whole(1), default=100, help="number of training pieces")
    parser.add_argument("--valid_fraction", type=real(0, 0.9), default=0.05, help="share held out at the end")
    parser.add_argument("--min_length", type=whole(0), default=0, help="characters; shorter documents are left out")
    parser.add_argument(
        "--add_tokens", type=token_names, help="further tokens of the vocabulary, for example [TIL],[WS]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Tokenize the corpus that the command line names."""
    options = parse_options(build_parser(), argv, section="tokenize")
    from novelgpt.corpus.pieces import tokenize_corpus

    tokenize_corpus(
        options.raw_data_path,
        options.tokenized_data_path,
        options.tokenizer_path,
        num_pieces=options.num_pieces,
        valid_fraction=options.valid_fraction,
        min_length=options.min_length,
        add_tokens=options.add_tokens,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
