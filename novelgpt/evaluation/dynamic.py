"""Dynamic evaluation: a copy of the network scores a stretch of the text, then learns it, and so on to the end.

::

    stretch        0            1            2
    weights   w0 ──────→ w1 ──────→ w2 ──────→ w3         w1 = w0 - one small step on stretch 0
    score       nats of 0    nats of 1    nats of 2       each by the weights before the step

New names and the habits of a scene are learned while they are read. The score stays honest, since a token is scored
before anything is learned from it, but it is another track than the loss of the model as it lies on the disk: the two
are never mixed. After Krause et al. 2018 (arXiv 1709.07432), with SGD on clipped gradients and a pull back to the
trained weights.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from novelgpt.evaluation.evaluation import NOT_SCORED, Rows, Scores, evaluation_batches, score_batches, tune_twin
from novelgpt.network import choose_precision, hidden_and_head

LR = 0.01  # of SGD on the mean loss of a stretch
MOMENTUM = 0.9
MAX_NORM = 1.0  # of a gradient: nearly every one is cut to it, so that a step is about as long for any network and text
PULL = 1e-3  # share of the way back to the trained weights, a step
STRETCH = 32  # tokens scored and learned at a time: 128 gain a third less in a third of the time
PROTOCOL = {"lr": LR, "momentum": MOMENTUM, "max_norm": MAX_NORM, "pull": PULL, "stretch": STRETCH}


class LearningCopy:
    """A copy of a network that learns what it reads; the network itself stays as it is, byte for byte."""

    def __init__(self, model: GPT2LMHeadModel, *, precision: str = "fp32", lr: float = LR, pull: float = PULL):
        """Copy a network.

        Args:
            model: in fp32 on its device.
            precision: "auto", "bf16", "fp16" or "fp32", of the matrix products; the weights stay in fp32.
            lr: learning rate of SGD with momentum on the mean loss of the tokens; 0 learns nothing.
            pull: share of the way back to the weights of `model` after each step, 0 to 1.

        Raises:
            UserError: a precision that the device lacks.
        """
        self.device = next(model.parameters()).device
        self.dtype = choose_precision(precision, self.device)
        self.twin = tune_twin(model, self.dtype)
        self.weights, self.trained = list(self.twin.parameters()), []
        # the twin stands on the network's own memory: that is kept to go back to, and a copy takes its place
        for weight in self.weights:
            self.trained.append(weight.detach())
            weight.data = weight.detach().clone()
        self.lr, self.pull = lr, pull
        self.restart()

    def restart(self) -> None:
        """Go back to the trained weights, as if nothing had been read."""
        self.return_to(self.trained)

    def snapshot(self) -> list[torch.Tensor]:
        """Return a copy of all that it has learned: its weights, in the order of the network's parameters."""
        return [weight.detach().clone() for weight in self.weights]

    def return_to(self, weights: list[torch.Tensor]) -> None:
        """Go back to a snapshot; what comes next depends on nothing that was read since, nor on the momentum."""
        self.optimizer = torch.optim.SGD(self.weights, lr=self.lr, momentum=MOMENTUM)
        with torch.no_grad():
            torch._foreach_copy_(self.weights, weights)

    @torch.enable_grad()
    def read(self, input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score tokens by the weights as they are, then take one step on exactly these tokens.

        Args:
            input_ids, labels: (B, T) int64 on the device, as of score_tokens; at least one label is scored.

        Returns:
            (nats, right) as of score_tokens, (B, T-1) each.
        """
        hidden, head = hidden_and_head(self.twin, input_ids, self.dtype)  # (B·(T-1), D), (V, D)
        wanted = labels[:, 1:].reshape(-1)  # (B·(T-1),)
        scored = wanted.ge(0)
        logits = F.linear(hidden[scored], head.to(hidden.dtype)).float()  # (S, V)
        losses = F.cross_entropy(logits, wanted[scored], reduction="none")  # (S,)
        self.learn(losses.mean())
        # where nothing is scored stands 0 and False
        nats, right = torch.zeros(len(wanted), device=self.device), torch.zeros_like(scored)
        nats[scored], right[scored] = losses.detach(), logits.argmax(1).eq(wanted[scored])
        return nats.view(len(labels), -1), right.view(len(labels), -1)  # (B, T-1) each

    def learn(self, loss: torch.Tensor) -> None:
        """Take one small step down a loss, then a part of the way back to the trained weights."""
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, MAX_NORM)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.weights, self.trained, self.pull)


def score_adapted(
    copy: LearningCopy, stream: Sequence[int], window: int, stride: int, *, stretch: int = STRETCH
) -> Scores:
    """Score a text from the trained weights on, learning each stretch after it is scored.

    Args:
        copy: of the network; it starts anew, so that texts do not depend on each other.
        stream: the tokens.
        window, stride: tokens; what is scored and how much each token sees is as in evaluation_batches.
        stretch: tokens scored and learned at a time; at most a stride is.

    Returns:
        The scores, in the order of `scored_places`.
    """
    copy.restart()
    return score_batches(copy.read, find_stretches(stream, window, stride, stretch), copy.device)


def find_stretches(stream: Sequence[int], window: int, stride: int, stretch: int) -> Iterator[Rows]:
    """Cut what each window scores into stretches: one row each, which ends with its stretch.

    >>> rows = find_stretches(np.arange(10), window=6, stride=4, stretch=3)
    >>> [(row.input_ids[0].tolist(), int((row.labels >= 0).sum())) for row in rows]
    [([0, 1, 2, 3], 3), ([0, 1, 2, 3, 4, 5], 2), ([4, 5, 6, 7, 8], 3), ([4, 5, 6, 7, 8, 9], 1)]
    """
    for row in evaluation_batches(stream, window, stride, 1):
        places = np.flatnonzero(row.labels[0, 1:] >= 0) + 1  # of the row
        for first in places[::stretch]:
            end = min(first + stretch, places[-1] + 1)
            labels = np.full((1, end), NOT_SCORED)
            labels[:, first:] = row.labels[:, first:end]
            yield Rows(row.input_ids[:, :end], labels, row.starts)
