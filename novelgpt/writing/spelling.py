"""Characters that are spelled as bytes stay whole: which byte tokens may follow which (UTF-8, RFC 3629, section 4).

起 ─ E7 ─ 82 ─ 8E ─ 身        behind E7 only 80 to BF, then the same once more; elsewhere never 80 to BF
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from novelgpt.corpus.tokenizers import NovelTokenizer

LOW, MIDDLE, HIGH = range(0x80, 0x90), range(0x90, 0xA0), range(0xA0, 0xC0)  # three kinds of bytes that go on
TWO, THREE, FOUR = range(0xC2, 0xE0), range(0xE1, 0xF0), range(0xF1, 0xF4)  # that begin so many, as do the next ones
KINDS = (LOW, MIDDLE, HIGH, TWO, THREE, FOUR, [0xE0], [0xED], [0xF0], [0xF4], [0xC0, 0xC1, *range(0xF5, 0x100)])
REFUSED = -1
# in each state the next one behind a token of no such kind, then of each kind in their order
STEPS = (
    (0, -1, -1, -1, 1, 2, 3, 4, 5, 6, 7, -1),  # 0: nothing is owed
    (-1, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1),  # 1: one more byte
    (-1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1),  # 2: two
    (-1, 2, 2, 2, -1, -1, -1, -1, -1, -1, -1, -1),  # 3: three
    (-1, -1, -1, 1, -1, -1, -1, -1, -1, -1, -1, -1),  # 4: two behind E0, from A0
    (-1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1),  # 5: two behind ED, to 9F
    (-1, -1, 2, 2, -1, -1, -1, -1, -1, -1, -1, -1),  # 6: three behind F0, from 90
    (-1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1),  # 7: three behind F4, to 8F
)
MOST = 3  # bytes of a character before its last one


@dataclass(frozen=True)
class Spelling:
    """The byte tokens of a vocabulary; all tensors lie on one device."""

    kinds: torch.Tensor  # int64 (V,): of each token, 0 for one that is no byte or an ASCII one
    states: torch.Tensor  # int64 (12, 12, 12): kinds of the last three tokens -> state
    refused: torch.Tensor  # bool (8, V): in each state the tokens that would leave a character in pieces
    back: torch.Tensor  # int64 (3,): -3, -2, -1
    pieces: torch.Tensor  # int64 (N,): the tokens that are refused where nothing is owed
    kind_of: list[int]  # the kinds for a CPU


def make_spelling(tokenizer: NovelTokenizer, device: torch.device) -> Spelling | None:
    """Return the spelling of a vocabulary; None where it has no byte tokens."""
    if not len(tokenizer.byte_ids):
        return None
    kinds = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
    for kind, each in enumerate(KINDS, 1):
        kinds[tokenizer.byte_ids[list(each)].astype("int64")] = kind
    numbers = range(len(KINDS) + 1)
    states = [[[find_state((first, second, third)) for third in numbers] for second in numbers] for first in numbers]
    refused = torch.tensor(STEPS)[:, kinds] == REFUSED  # (8, V)
    tensors = (kinds, torch.tensor(states), refused, torch.arange(-MOST, 0), refused[0].nonzero().squeeze(1))
    return Spelling(*(tensor.to(device) for tensor in tensors), kinds.tolist())


def find_state(kinds: Sequence[int]) -> int:
    """Return the state behind some tokens; a character in pieces owes nothing.

    >>> find_state([0, 5, 3]), find_state([5, 3, 1]), find_state([1, 2, 5]), find_state([5, 5, 0])
    (1, 0, 2, 0)
    """
    state = 0
    for kind in kinds:
        following = STEPS[state][kind]
        state = max(0, STEPS[0][kind]) if following == REFUSED else following
    return state


def refuse_pieces(
    logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor | int, spelling: Spelling
) -> torch.Tensor:
    """Ban every token that would leave a character in pieces; no row loses all its tokens.

    Logits are (B, V), the history (B, N) token ids, of which `count` columns are written, at least one.
    """
    if history.device.type != "cpu":  # nothing is read back
        return logits.masked_fill(spelling.refused[find_states(history, count, spelling)], -math.inf)
    last = history[:, max(0, int(count) - MOST) : int(count)].tolist()
    states = [find_state([spelling.kind_of[token_id] for token_id in row]) for row in last]
    if any(states):
        return logits.masked_fill(spelling.refused[states], -math.inf)
    return logits.index_fill(1, spelling.pieces, -math.inf)


def find_states(history: torch.Tensor, count: torch.Tensor | int, spelling: Spelling) -> torch.Tensor:
    """Return the state (B,) behind each row of a history, as for refuse_pieces."""
    last = history[:, (count + spelling.back).clamp(min=0)]  # (B, 3); of a shorter text the first one again
    return spelling.states[spelling.kinds[last].unbind(1)]
