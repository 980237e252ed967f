"""The 4-gram of the same split beside a network's held-out loss: a network that loses to it has failed."""

from novelgpt.corpus.pieces import TokenStream
from novelgpt.messages import say
from novelgpt.ngram import MAX_TOKENS, MAX_VOCABULARY, fit_ngram, ngram_nll
from novelgpt.training.evaluation import Evaluation

CLOSE = 0.02  # nats per token that do not count as a difference


def score_ngram(train: TokenStream, text: TokenStream, *, vocab_size: int, characters: int) -> Evaluation | None:
    """Score a text by an interpolated Kneser-Ney 4-gram of the training tokens.

    Args:
        train: the tokens to count, the same that the network was trained on.
        text: the tokens to score, all but the first.
        vocab_size: how many tokens there are.
        characters: characters of the text.

    Returns:
        The evaluation; None, and a word of it, where counting would take too long or ids do not fit.
    """
    if len(train) > MAX_TOKENS or vocab_size > MAX_VOCABULARY:
        sizes = f"{len(train):,} training tokens of a vocabulary of {vocab_size:,}"
        say(f"4-gram: left out for {sizes}; at most {MAX_TOKENS:,} and {MAX_VOCABULARY:,} are counted")
        return None
    nll = ngram_nll(fit_ngram(train.read()), text.read(), vocab_size)
    return Evaluation(float(nll.sum()), len(nll), len(text), characters)


def compare_words(loss: float, ngram: float) -> str:
    """Say how a network's loss stands to the 4-gram's, both in nats per token.

    >>> compare_words(3.5, 4.0)
    '0.5000 below a 4-gram of the same text (4.0000)'
    >>> compare_words(4.3, 4.0)
    '0.3000 above a 4-gram of the same text (4.0000), so it has learnt too little'
    """
    if abs(loss - ngram) < CLOSE:
        return f"level with a 4-gram of the same text ({ngram:.4f})"
    if loss < ngram:
        return f"{ngram - loss:.4f} below a 4-gram of the same text ({ngram:.4f})"
    return f"{loss - ngram:.4f} above a 4-gram of the same text ({ngram:.4f}), so it has learnt too little"
