"""Logits -> the next token of every sample. Pure functions, in the order in which they act.

    logits (B, V) ─penalties, bans→ ─temperature→ ─top-k→ candidates (B, K) ─top-p, min-p, typical→ ─one number→ (B,)

Candidates are a small table of the best tokens, best first, so that nothing after top-k touches the whole vocabulary
again. Without top-k, top-p looks for its nucleus among the tokens of at least 1/5,000, then of an eighth of that, …;
without both, tokens are drawn from the running sum of all probabilities, and nothing is sorted.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from novelgpt.writing.spelling import Spelling, refuse_pieces

LEAST_CHANCE, LOWER = 1 / 5000, 1 / 8  # of a token that top-p looks at first; each next time times this
NO_CHANCE = 1e-12  # below it all tokens are looked at
LONGEST_RUN = 50  # tokens of a run that DRY looks at; what is longer is past any logit
LONGEST_NAME = 8  # tokens
MOST_LOWERED = 1e4  # by DRY: below every other token, and yet a number
UNIFORM_STEPS = 1 << 32  # uniform numbers are multiples of 1 / this, so that u * total < total holds in float64


@dataclass(frozen=True)
class Controls:
    """How tokens are chosen, and what a model still sees of a long text."""

    temperature: float = 1.0  # divides the logits; 0 takes the best token always
    topk: int = 0  # candidates kept, 0 = all
    topp: float = 1.0  # smallest set of candidates with at least this probability, 0 or 1 = all
    min_p: float = 0.0  # candidates at least this fraction as likely as the best one, 0 = all
    typical: float = 1.0  # candidates of this probability whose surprise is nearest the mean, 0 or 1 = all
    dry_multiplier: float = 0.0  # lowers the logit of a token that goes on with a repeated run, 0 = off; penalize_runs
    dry_base: float = 1.75  # the same again, times this for each further token of the run
    dry_allowed_length: int = 8  # tokens of a run that may be written again
    breakers: torch.Tensor | None = None  # bool (V,), tokens over which no such run reaches; None = none
    names: tuple[torch.Tensor, ...] = ()  # the same for whole runs, int64 (K, M) each, M at most LONGEST_NAME
    repetition_penalty: float = 1.0  # lowers the logits of recent tokens, 1 = off; see penalize_repetition
    penalty_window: int = 256  # how many recent tokens count, 0 = all
    no_repeat_ngram_size: int = 0  # no run of this many tokens is written twice, 0 = off
    banned: torch.Tensor | None = None  # int64 token ids (N,) never produced, on the device of the logits; None = none
    spelling: Spelling | None = None  # of the byte tokens, so that characters stay whole; None = none
    bad_words: tuple[torch.Tensor, ...] = ()  # token sequences, int64 (M,) each on that device, never produced
    keep_head: int = 0  # tokens of the beginning that stay in every window, at most a quarter of the context


def uniform_numbers(seed: int, index: int, count: int, *, attempt: int = 0) -> np.ndarray:
    """Return the uniform numbers in [0, 1) of one sample, a function of (seed, index, attempt) alone.

    Philox counts instead of remembering: every sample has its own key, on every machine the same.

    Args:
        seed: of the run, 0 to 2**64 - 1.
        index: of the sample, from 0, below 2**32.
        count: how many; more of them begin with the same ones.
        attempt: 1, 2, … for further tries of the same sample.

    Returns:
        (count,) float64.

    >>> uniform_numbers(7, 0, 2).tolist() == uniform_numbers(7, 0, 9)[:2].tolist() != uniform_numbers(7, 1, 2).tolist()
    True
    """
    key = np.array([seed, index + (attempt << 32)], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(count) >> np.uint64(32)
    return words.astype(np.float64) / UNIFORM_STEPS


def penalize_repetition(logits: torch.Tensor, recent: torch.Tensor, penalty: float) -> torch.Tensor:
    """Lower the logits of recent tokens: positive ones are divided, negative ones multiplied (CTRL, arXiv 1909.05858).

    Logits are (B, V), recent ids (B, W), of which doubles count once; a penalty of 1 changes nothing.

    >>> penalize_repetition(torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[0, 1, 1]]), 2.0).tolist()
    [[1.0, -4.0, 1.0]]
    """
    chosen = logits.gather(1, recent)  # (B, W)
    return logits.scatter(1, recent, torch.where(chosen < 0, chosen * penalty, chosen / penalty))


def ban_repeated_ngrams(logits: torch.Tensor, history: torch.Tensor, size: int, count: torch.Tensor | int):
    """Ban every token that would write a run of `size` tokens, at least 1, a second time.

    Logits are (B, V), the history (B, N) token ids, of which `count` columns are written.

    >>> ban_repeated_ngrams(torch.zeros(1, 4), torch.tensor([[1, 2, 3, 1, 2]]), 3, 5).tolist()
    [[0.0, 0.0, 0.0, -inf]]
    """
    if history.shape[1] < size:
        return logits
    # the last size - 1 tokens, compared with the beginning of every run written so far
    runs = history.unfold(1, size, 1)  # (B, N - size + 1, size)
    places = torch.arange(history.shape[1], device=history.device)
    tail = (count - size + 1 + places[: size - 1]).clamp(min=0)  # (size - 1,)
    same = (runs[:, :, : size - 1] == history[:, tail].unsqueeze(1)).all(-1)  # (B, N - size + 1)
    same &= places[: runs.shape[1]] + size - 1 < count
    # where they agree, the last token of that run must not follow
    marks = torch.zeros_like(logits).scatter_add_(1, runs[:, :, -1], same.to(logits.dtype))  # (B, V)
    return logits.masked_fill(marks > 0, -math.inf)


def ban_words(
    logits: torch.Tensor, history: torch.Tensor, words: tuple[torch.Tensor, ...], count: torch.Tensor | int
) -> torch.Tensor:
    """Ban the last token of every word whose other tokens stand at the end of the history.

    >>> words = tuple(map(torch.tensor, ([1, 2], [2, 0], [0])))
    >>> ban_words(torch.zeros(1, 4), torch.tensor([[3, 1]]), words, 2).tolist()
    [[-inf, 0.0, -inf, 0.0]]
    """
    # every word costs one comparison and one column; the logits of the caller stay as they are
    logits = logits.clone()
    for word in words:
        places = count - len(word) + 1 + torch.arange(len(word) - 1, device=history.device)
        found = ((history[:, places.clamp(min=0)] == word[:-1]) & (places >= 0)).all(1, keepdim=True)  # (B, 1)
        column = logits.index_select(1, word[-1:]).masked_fill(found, -math.inf)  # (B, 1)
        logits.index_copy_(1, word[-1:], column)
    return logits


def penalize_runs(
    logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor | int, controls: Controls
) -> torch.Tensor:
    """Lower the logits of tokens that would go on with a run that the text has had before (DRY, “don't repeat”).

    After p-e-w's definition (text-generation-webui, pull request 5677): a token that once followed what the text ends
    with, n tokens long, loses multiplier · base^(n - allowed length) where n is at least that length. A run ends at a
    breaker, and a breaker is never made less likely. Here the whole text counts, a name of several tokens may break
    runs too, and n is at most LONGEST_RUN.

    >>> controls = Controls(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=2)
    >>> penalize_runs(torch.zeros(1, 5), torch.tensor([[1, 2, 3, 4, 1, 2, 3]]), 7, controls).tolist()
    [[0.0, 0.0, 0.0, 0.0, -2.0]]
    """
    # how far back from each place the text is what it ends with, counted token by token
    width, is_cpu = history.shape[1], history.device.type == "cpu"  # a GPU would have to wait for an answer
    places = torch.arange(width, device=history.device)
    padded = torch.nn.functional.pad(history, (LONGEST_RUN, 0), value=-1)  # (B, LONGEST_RUN + N)
    alive = (places < count - 1).expand(len(history), -1)  # (B, N)
    lengths = torch.zeros_like(history)
    for back in range(LONGEST_RUN):
        last = history[:, (count - 1 - back + places[:1]).clamp(min=0)]  # (B, 1)
        alive = alive & (padded[:, LONGEST_RUN - back :][:, :width] == last)
        lengths = lengths + alive
        if is_cpu and not alive.any():
            break
    if is_cpu and lengths.max() < controls.dry_allowed_length:
        return logits
    # no run reaches over a breaker
    stops = find_stops(history, count, controls)  # (B, LONGEST_RUN), the last token first
    first = torch.where(stops.any(1), stops.int().argmax(1), LONGEST_RUN)  # (B,)
    lengths = torch.minimum(lengths, first.unsqueeze(1))
    # what stood behind them
    over = lengths - controls.dry_allowed_length  # (B, N)
    following = history.roll(-1, 1)  # (B, N)
    lowered = (controls.dry_multiplier * controls.dry_base ** over.double()).clamp(max=MOST_LOWERED).to(logits.dtype)
    counts = over >= 0
    if controls.breakers is not None:
        counts &= ~controls.breakers[following]
    lowered = torch.where(counts, lowered, 0)
    return logits - torch.zeros_like(logits).scatter_reduce_(1, following, lowered, "amax")


def find_stops(history: torch.Tensor, count: torch.Tensor | int, controls: Controls) -> torch.Tensor:
    """Return where the last tokens break runs, bool (B, LONGEST_RUN), the very last one first.

    These are breakers, the tokens of names, what may become a name, and the places before the text.
    """
    reach = LONGEST_RUN + LONGEST_NAME
    places = count - reach + torch.arange(reach, device=history.device)  # (reach,)
    last = torch.where(places >= 0, history[:, places.clamp(min=0)], -1)  # (B, reach)
    stops = last < 0
    if controls.breakers is not None:
        stops |= controls.breakers[last.clamp(min=0)]
    for names in controls.names:  # (K, M)
        size = names.shape[1]
        found = (last.unfold(1, size, 1).unsqueeze(2) == names).all(-1).any(-1)  # (B, reach - M + 1)
        for place in range(size):
            stops[:, place : place + found.shape[1]] |= found
            if place:  # the text ends with the first of its tokens
                stops[:, -place:] |= (last[:, None, -place:] == names[:, :place]).all(-1).any(-1, keepdim=True)
    return stops[:, LONGEST_NAME:].flip(1)


def take_candidates(logits: torch.Tensor, controls: Controls) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and ids (B, K) of the tokens that may be drawn, from logits (B, V); those filtered out have -inf.

    >>> values, ids = take_candidates(torch.tensor([[1.0, 4.0, 3.0, 2.0]]), Controls(topk=2))
    >>> values.tolist(), ids.tolist()
    ([[4.0, 3.0]], [[1, 2]])
    """
    # the best tokens, as few as the filters allow, with the sum that turns logits into probabilities
    nucleus = 0 < controls.topp < 1
    if 0 < controls.topk < logits.shape[1]:
        values, ids = logits.topk(controls.topk)  # (B, K), best first
        log_total = values.logsumexp(1, keepdim=True) if nucleus else None
    elif nucleus:
        log_total = logits.logsumexp(1, keepdim=True)  # (B, 1)
        values, ids = find_nucleus(logits, log_total, controls.topp)
    else:
        values, ids = logits, torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
    # filters that look at candidates only
    if nucleus:
        values = keep_topp(values, log_total, controls.topp)
    if controls.min_p > 0:
        values = keep_min_p(values, controls.min_p)
    if 0 < controls.typical < 1:
        values = keep_typical(values, controls.typical)
    return values, ids


def find_nucleus(logits: torch.Tensor, log_total: torch.Tensor, topp: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return enough of the best tokens (B, K), best first, to hold the probability topp; it grows where it must.

    On a GPU everything is sorted instead, for reading a number back would make it wait.
    """
    if logits.device.type != "cpu":
        return logits.sort(descending=True)
    rows = [best_of_row(row, total, topp) for row, total in zip(logits, log_total, strict=True)]
    width = max(len(values) for values, _ in rows)
    values = logits.new_full((len(rows), width), -math.inf)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    for row, (best, places) in enumerate(rows):
        values[row, : len(best)], ids[row, : len(best)] = best, places
    return values, ids


def best_of_row(row: torch.Tensor, log_total: torch.Tensor, topp: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best tokens of one row (V,), best first, at least as many as hold the probability topp.

    Only tokens above a probability are sorted, which is several times faster than the best k of all.
    """
    least = LEAST_CHANCE
    while least > NO_CHANCE:
        ids = (row > log_total + math.log(least)).nonzero().squeeze(1)
        values = row[ids]
        if float((values.double() - log_total).exp().sum()) > topp:
            values, order = values.sort(descending=True, stable=True)
            return values, ids[order]
        least *= LOWER
    return row.sort(descending=True, stable=True)


def keep_topp(values: torch.Tensor, log_total: torch.Tensor, topp: float) -> torch.Tensor:
    """Keep the candidates before which less than topp of the probability lies; the best one always stays.

    Values are (B, K) logits, best first; log_total (B, 1) is the logarithm of the sum that makes probabilities of them.

    >>> keep_topp(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), torch.zeros(1, 1), 0.7).exp().tolist()[0][2:]
    [0.0, 0.0]
    """
    probabilities = (values.double() - log_total).exp()  # (B, K)
    before = probabilities.cumsum(1) - probabilities
    before[:, 0] = -1.0
    return values.masked_fill(before >= topp, -math.inf)


def keep_min_p(values: torch.Tensor, min_p: float) -> torch.Tensor:
    """Keep the candidates at least min_p times as likely as the best (arXiv 2407.01082).

    >>> keep_min_p(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), 0.5).exp().tolist()[0][2:]
    [0.0, 0.0]
    """
    return values.masked_fill(values < values.amax(1, keepdim=True) + math.log(min_p), -math.inf)


def keep_typical(values: torch.Tensor, typical: float) -> torch.Tensor:
    """Keep the candidates whose surprise is nearest the mean surprise, until they have that much of the probability.

    Locally typical sampling (Meister et al. 2023, arXiv 2202.00666); values are (B, K) logits.

    >>> keep_typical(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), 0.2).exp().tolist()[0][::2]  # the mean is 1.14 nats
    [0.0, 0.0]
    """
    # sums run from one end to the other, so that candidates at -inf behind the others change no bit
    weights = (values - values.amax(1, keepdim=True)).double().exp()  # (B, K)
    chances = weights / weights.cumsum(1)[:, -1:]
    surprise = torch.where(chances > 0, -chances.log(), 0)
    mean = (chances * surprise).cumsum(1)[:, -1:]  # (B, 1)
    distance = torch.where(chances > 0, (surprise - mean).abs(), math.inf)
    order = distance.sort(dim=1, stable=True).indices
    ranked = chances.gather(1, order)
    dropped = ranked.cumsum(1) - ranked >= typical
    dropped[:, 0] = False
    return values.masked_fill(torch.zeros_like(dropped).scatter_(1, order, dropped), -math.inf)


def draw(values: torch.Tensor, ids: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Draw one candidate a row: the first at which the running sum of probabilities passes the uniform number.

    Args:
        values: (B, K) logits; -inf is never drawn.
        ids: (B, K) token ids.
        uniforms: (B,) float64 in [0, 1), multiples of 2**-32.

    Returns:
        (B,) token ids.

    >>> draw(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[7, 8, 9]]), torch.tensor([0.6]).double()).tolist()
    [8]
    """
    weights = (values - values.amax(1, keepdim=True)).double().exp()  # (B, K)
    sums = weights.cumsum(1)
    places = torch.searchsorted(sums, uniforms.unsqueeze(1) * sums[:, -1:], right=True)  # (B, 1)
    places.clamp_(max=values.shape[1] - 1)  # only logits that are not numbers get that far
    return ids.gather(1, places).squeeze(1)


def choose_tokens(
    logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor | int, uniforms: torch.Tensor, controls: Controls
) -> torch.Tensor:
    """Choose the next token of every row.

    Args:
        logits: (B, V) of the next token; changed in place where tokens are banned for good.
        history: (B, N) token ids, prefix and what was written.
        count: how many of the N columns are written; on a GPU a tensor (1,).
        uniforms: (B,) float64 in [0, 1), one number for each row.
        controls: the filters; with temperature 0 the best token is taken and no number used.

    Returns:
        (B,) int64 token ids.
    """
    return draw(*find_candidates(logits, history, count, controls), uniforms)


def find_candidates(
    logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor | int, controls: Controls
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and ids (B, K) of the tokens among which choose_tokens draws; those filtered out have -inf.

    Arguments as for choose_tokens; with temperature 0 only the best token is left.
    """
    # bans and penalties act on the whole vocabulary, before anything is compared
    if controls.banned is not None:
        logits.index_fill_(1, controls.banned, -math.inf)
    if controls.spelling is not None:
        logits = refuse_pieces(logits, history, count, controls.spelling)
    if controls.repetition_penalty != 1:
        logits = penalize_repetition(logits, recent_tokens(history, count, controls), controls.repetition_penalty)
    if controls.dry_multiplier:
        logits = penalize_runs(logits, history, count, controls)
    if controls.no_repeat_ngram_size or controls.bad_words:
        logits = apply_bans(logits, history, count, controls)
    # the best token, or those that temperature and filters leave
    if controls.temperature == 0:
        return logits.max(1, keepdim=True)
    if controls.temperature != 1:
        logits = logits / controls.temperature
    return take_candidates(logits, controls)


def apply_bans(
    logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor | int, controls: Controls
) -> torch.Tensor:
    """Ban repeated runs and bad words; where that would leave a row no token at all, the row stays as it was."""
    left = logits
    if controls.no_repeat_ngram_size:
        left = ban_repeated_ngrams(left, history, controls.no_repeat_ngram_size, count)
    if controls.bad_words:
        left = ban_words(left, history, controls.bad_words, count)
    return torch.where(left.amax(1, keepdim=True) == -math.inf, logits, left)


def recent_tokens(history: torch.Tensor, count: torch.Tensor | int, controls: Controls) -> torch.Tensor:
    """Return the last tokens of the history (B, W); where there are fewer, the last one again."""
    width = min(controls.penalty_window or history.shape[1], history.shape[1])
    back = torch.arange(width, device=history.device)
    places = count - 1 - torch.where(back < count, back, 0)
    return history[:, places]
