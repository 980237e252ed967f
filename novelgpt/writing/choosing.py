"""`--best_of N`: of N candidates of a text the one that surprises the model as often, and as much, as the book does.

::

    the book's last pages   nats of every token by the model → how they are distributed
    each candidate          nats of its tokens, noted while it is written → how far from that
    kept                    the nearest one that neither goes round in circles nor copies

A text without surprises is dull and one of surprises alone is nonsense; the author writes neither (the paper on typical
sampling, arXiv 2202.00666, has the argument). The last pages are what a model has mostly not been trained on.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch

from novelgpt.corpus.style import distinct_share
from novelgpt.writing.decoder import Decoder, Weights

LEVELS = np.linspace(0.05, 0.95, 19)  # quantiles at which two distributions are compared
READ_TOKENS = 4096  # of the book's end
RUN = 8  # characters of a repeated run
PAGES = 100  # of the book, whose repetitions are usual
LONGEST_COPY = 40  # characters that no candidate should copy in a row


def distance(nats: Sequence[float], usual: np.ndarray) -> float:
    """Return how far the distribution of nats is from another one, given by its quantiles at LEVELS, in nats.

    >>> usual = np.quantile([1.0, 2.0, 3.0], LEVELS)
    >>> round(distance([1.5, 2.5, 3.5], usual), 6), distance([], usual)
    (0.5, inf)
    """
    if not len(nats):
        return float("inf")
    return float(np.abs(np.quantile(np.asarray(nats, float), LEVELS) - usual).mean())


def repeated_share(text: str) -> float:
    """Return the share of a text's runs of RUN characters that it has had before.

    >>> repeated_share("甲乙丙丁戊己庚辛" * 2)  # 9 runs, of which the last is the first again
    0.11111111111111116
    """
    return 1 - distinct_share(text, RUN) if len(text) >= RUN else 0.0


def read_nats(weights: Weights, ids: Sequence[int]) -> np.ndarray:
    """Return the nats of a text's tokens, each after at least half a context; of a short text all but the first."""
    context, parts = weights.context, []
    half, whole = max(1, context // 2), torch.tensor(list(ids), device=weights.device)
    for start in range(0, max(1, len(ids) - half), half):
        window = whole[start : start + context]
        if len(window) > 1:
            logits = Decoder(weights, rows=1, slots=len(window)).prefill(0, window, every=True)  # (N, V)
            nats = torch.nn.functional.cross_entropy(logits[:-1], window[1:], reduction="none")  # (N - 1,)
            parts.append(nats[half - 1 if len(ids) > half else 0 :])
    return torch.cat(parts).double().cpu().numpy() if parts else np.zeros(0)


class Chooser:
    """Chooses among the candidates of a text, and counts what they cost.

    Args:
        count: candidates of each text.
        weights, tokenizer: of the model.
        documents: chapters of the book that it was trained on.
        max_copy: characters that a text may copy in a row; None for LONGEST_COPY.
    """

    def __init__(
        self,
        count: int,
        weights: Weights,
        tokenizer,
        documents: Sequence[str],
        max_copy: int | None,
    ):
        self.count, self.max_copy = count, max_copy or LONGEST_COPY
        # whole chapters from the end on, until there are enough tokens
        ids: list[int] = []
        for document in reversed(documents):
            ids = tokenizer.encode_document(document).tolist() + ids
            if len(ids) >= READ_TOKENS:
                break
        nats = read_nats(weights, ids[-READ_TOKENS:])
        self.usual = np.quantile(nats, LEVELS) if len(nats) else np.zeros(len(LEVELS))
        self.documents = documents
        self.limits: dict[int, float] = {}  # characters -> share of repeated runs that is usual for a text so long
        self.texts, self.tokens, self.seconds = 0, 0, 0.0

    def usual_repeats(self, length: int) -> float:
        """Return the share of repeated runs that 95 % of the book's pages of so many characters have at most."""
        length = max(RUN, length // 100 * 100)
        if length not in self.limits:
            text = "\n".join(self.documents)
            starts = np.linspace(0, max(0, len(text) - length), PAGES).astype(int)
            shares = [repeated_share(text[start : start + length]) for start in starts]
            self.limits[length] = float(np.quantile(shares, 0.95))
        return self.limits[length]

    def choose(self, candidates: Sequence, texts: Sequence[str], copied: Sequence[int], began: float):
        """Return the best candidate of a text.

        Args:
            candidates: the Samples, with the nats of their tokens.
            texts: what people read of each.
            copied: characters that each copies in a row; 0 where that is not measured.
            began: what time.perf_counter() showed before they were written.
        """
        rows = zip(candidates, texts, copied, strict=True)
        _, kept = min(((self.rank(*row), place) for place, row in enumerate(rows)), key=lambda pair: pair)
        self.texts += 1
        self.tokens += sum(len(candidate.ids) for candidate in candidates)
        self.seconds += time.perf_counter() - began
        return candidates[kept]

    def rank(self, sample, text: str, copied: int) -> tuple[bool, bool, float]:
        """Return what decides, the lower the better: it loops, it copies, it is far from the book."""
        loops = sample.ended == "loop" or repeated_share(text) > self.usual_repeats(len(text))
        return loops, copied > self.max_copy, distance(sample.nats[: len(sample.ids)], self.usual)

    def describe(self) -> str:
        """Describe what the candidates cost."""
        each = self.seconds / max(1, self.texts)
        return f"--best_of {self.count}: {self.tokens:,} tokens for {self.texts} texts, {each:.1f} s each"
