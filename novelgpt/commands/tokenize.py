"""Turn cleaned chapters into numbered files of token ids, which train.py reads.

python tokenize_corpus.py
python tokenize_corpus.py --raw_data_path data/train.json --tokenizer_path cache/vocab_novel.txt --num_pieces 10
"""

from collections.abc import Sequence

from novelgpt.cli import Parser, TokenizeOptions


def build_parser() -> Parser[TokenizeOptions]:
    """Return the command line of tokenize_corpus.py."""
    return Parser(TokenizeOptions, __doc__, section="tokenize", prog="tokenize_corpus.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Tokenize the corpus that the command line names."""
    options = build_parser().parse_options(argv)
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
