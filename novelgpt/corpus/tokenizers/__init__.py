"""Text <-> token ids: three kinds of tokenizer with one face, NovelTokenizer.

character   a vocab.txt with the byte tokens <0x00> to <0xFF>   lossless                   character.py
bpe         a tokenizer.json with merges                        lossless, subwords         subword.py
wordpiece   a vocab.txt without byte tokens                     a BERT vocabulary, lossy   wordpiece.py
"""

from novelgpt.corpus.tokenizers.base import NovelTokenizer, has_vocabulary
from novelgpt.corpus.tokenizers.character import CharacterTokenizer
from novelgpt.corpus.tokenizers.fitting import fit_vocabulary, write_small_vocabulary
from novelgpt.corpus.tokenizers.subword import BpeTokenizer
from novelgpt.corpus.tokenizers.wordpiece import WordPieceTokenizer

KINDS = (CharacterTokenizer, BpeTokenizer, WordPieceTokenizer)  # imported here, so that NovelTokenizer knows them all
load_tokenizer = NovelTokenizer.from_file

__all__ = ["NovelTokenizer", "fit_vocabulary", "has_vocabulary", "load_tokenizer", "write_small_vocabulary"]
