"""How well a vocabulary fits: what is covered, what falls to bytes."""

from collections import Counter

from novelgpt.corpus.tokenizers.fitting import coverage
from novelgpt.corpus.tokenizers.vocabulary import BYTE_TOKENS


def test_coverage_counts_what_falls_to_bytes():
    fit = coverage(Counter("萧炎炎𠮷a\n"), [*BYTE_TOKENS, "萧"])
    assert fit.missing == [("炎", 2), ("𠮷", 1)]
    assert (fit.characters, fit.covered) == (6, 3)
    assert fit.tokens == 1 + 2 * 3 + 4 + 1 + 1  # 萧, 炎 in three bytes twice, 𠮷 in four, a, newline
