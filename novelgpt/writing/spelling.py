"""Characters that are spelled as bytes stay whole: which byte tokens may follow which (UTF-8, RFC 3629, section 4).

起 ─ E7 ─ 82 ─ 8E ─ 身        behind E7 only 80 to BF, then the same once more; elsewhere never 80 to BF

What is no text is not spelled either: the controls U+0080 to U+009F, and all from U+40000 on, where there is nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

LOW, MIDDLE, HIGH = range(0x80, 0x90), range(0x90, 0xA0), range(0xA0, 0xC0)  # three kinds of bytes that go on
TWO, THREE = range(0xC3, 0xE0), [*range(0xE1, 0xED), 0xEE, 0xEF]  # that begin so many, as do C2, E0, ED and F0
KINDS = (LOW, MIDDLE, HIGH, TWO, THREE, [0xC2], [0xE0], [0xED], [0xF0], [0xC0, 0xC1, *range(0xF1, 0x100)])
REFUSED = -1
# in each state the next one behind a token of no such kind, then of each kind in their order
STEPS = (
    (0, -1, -1, -1, 1, 2, 3, 4, 5, 6, -1),  # 0: nothing is owed
    (-1, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1),  # 1: one more byte
    (-1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1),  # 2: two
    (-1, -1, -1, 0, -1, -1, -1, -1, -1, -1, -1),  # 3: one behind C2, from A0
    (-1, -1, -1, 1, -1, -1, -1, -1, -1, -1, -1),  # 4: two behind E0, from A0
    (-1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1),  # 5: two behind ED, to 9F
    (-1, -1, 2, 2, -1, -1, -1, -1, -1, -1, -1),  # 6: three behind F0, from 90
)
MOST = 3  # bytes of a character before its last one


@dataclass(frozen=True)
class Spelling:
    """The byte tokens of a vocabulary; all tensors lie on one device."""

    kinds: torch.Tensor  # int64 (V,): of each token, 0 for one that is no byte or an ASCII one
    states: torch.Tensor  # int64 (11, 11, 11): kinds of the last three tokens -> state
    refused: torch.Tensor  # bool (7, V): in each state the tokens that would leave a character in pieces
    back: torch.Tensor  # int64 (3,): -3, -2, -1
    pieces: torch.Tensor  # int64 (N,): the tokens that are refused where nothing is owed
    kind_of: list[int]  # the kinds for a CPU


def make_spelling(byte_ids: np.ndarray, vocab_size: int, device: torch.device) -> Spelling | None:
    """Return the spelling of a vocabulary from the ids of its byte tokens, (256,) or (0,); None where it has none."""
    if not len(byte_ids):
        return None
    kinds = torch.zeros(vocab_size, dtype=torch.int64)
    for kind, each in enumerate(KINDS, 1):
        kinds[byte_ids[list(each)].astype("int64")] = kind
    numbers = range(len(KINDS) + 1)
    states = [[[find_state((first, second, third)) for third in numbers] for second in numbers] for first in numbers]
    refused = torch.tensor(STEPS)[:, kinds] == REFUSED  # (7, V)
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
