"""`--adapt`: a copy of the model learns the text that it goes on with; the model on the disk stays as it is.

::

    before writing   the prefix, chapter or story, twice from its beginning to its end
    while writing    what has left the window, once; then the window is read again by the new weights
    between parts    of a story written by turns: what is new since, twice; kept beside the story

Small steps on a few tokens at a time, each with what stands before them, and after each a part of the way back to the
trained weights (evaluation/dynamic.py). What was learned while one text was written is forgotten before the next, so
every text stays a function of (prefix, seed, number).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from novelgpt.evaluation import NOT_SCORED, STRETCH, LearningCopy
from novelgpt.files import atomic_writer
from novelgpt.messages import UserError, say, warn
from novelgpt.network import check_safetensors_header, hash_weights, read_safetensors
from novelgpt.writing.decoder import Weights

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

PASSES = 2  # over a text before the writing
# Half of the rate of dynamic evaluation, and a pull that takes most of a step back after sixty of them, 2,000 tokens.
# Measured on 红楼梦: with its own rate and pull 2,000 tokens made the next chapter worse by 0.05 to 0.07 nats a token,
# with these better by 0.002 to 0.005; what follows a page with a new name in it got better by 0.04 and by 0.03
LR = 0.005
PULL = 0.0167  # share of the way back to the trained weights, a step
LOOK_BACK = 256  # tokens before and with those that a step learns
KEPT = "story.adapted.safetensors"  # beside story.txt
LEARNED, TRAINED = "learned", "trained"  # tensors of that file beside the weights: token ids; the model's hash


class TextLearner:
    """A model that learns texts before it continues them.

    Args:
        model: trained, in fp32 on the device that writes; never changed.
        unknown: ids of tokens that are not text, which it reads but does not learn.
        kind: of the Weights that it makes, "fp32", "bf16" or "int8".
    """

    def __init__(self, model: "GPT2LMHeadModel", unknown: Sequence[int], *, kind: str = "fp32"):
        self.copy = LearningCopy(model, precision="bf16" if kind == "bf16" else "fp32", lr=LR, pull=PULL)
        self.unknown, self.kind = torch.tensor(list(unknown), device=self.copy.device), kind
        self.context = min(model.config.n_positions, LOOK_BACK)  # tokens
        # a step learns at most half of what it reads, so that each token has something before it
        self.stretch = max(1, min(STRETCH, self.context // 2))  # tokens
        self.ids: list[int] = []  # the text that the base has learned
        self.base = self.copy.snapshot()  # the weights after that
        self.weights = self.make_weights()  # the same, ready to write
        self.place = 0  # tokens of the text in the making that were learned, or never will be
        self.path: Path | None = None  # where the base is kept
        self.trained = b""  # hash of the model, where it is kept

    def make_weights(self) -> Weights:
        """Return the weights as they are now in the form that writes."""
        return Weights(self.copy.twin, kind=self.kind)

    def network(self) -> "GPT2LMHeadModel":
        """Return the network that has learned; it goes on changing."""
        return self.copy.twin

    def begin(self, ids: Sequence[int]) -> Weights:
        """Return weights that have learned exactly this text, and forget what was learned since.

        Args:
            ids: of the prefix; where it is the one that was learned last, nothing is learned again.
        """
        if self.ids != list(ids):
            self.copy.restart()
            self.learn_base(ids, 0)
        else:
            self.copy.return_to(self.base)
        self.place = len(ids)
        return self.weights

    def go_on(self, ids: Sequence[int]) -> None:
        """Learn what is new of a story, and keep that beside it.

        Args:
            ids: the whole story. Where what was learned is no longer its beginning, since a part was undone or written
                anew, it is learned from the trained weights on.
        """
        known = len(self.ids)
        if 0 < known <= len(ids) and list(ids[:known]) == self.ids:
            self.copy.return_to(self.base)
            if known < len(ids):
                self.learn_base(ids, known)
        else:
            self.begin(ids)
        self.keep()

    def learn_base(self, ids: Sequence[int], first: int) -> None:
        """Learn a text from a place on, a few times, and make it the base."""
        start = time.perf_counter()
        for _ in range(PASSES):
            self.learn(ids, first, len(ids))
        self.ids, self.base, self.weights = list(ids), self.copy.snapshot(), self.make_weights()
        count = max(0, len(ids) - max(first, 1))
        say(f"--adapt: {count:,} tokens learned in {time.perf_counter() - start:.1f} s")

    def follow(self, ids: Sequence[int], end: int) -> Weights:
        """Learn the tokens of a growing text up to a place, those that were not learned yet, and return the weights.

        Args:
            ids: the text as far as it is written.
            end: where its window begins now; what lies before has left it.
        """
        self.learn(ids, self.place, end)
        self.place = max(self.place, end)
        return self.make_weights()

    def learn(self, ids: Sequence[int], first: int, end: int) -> None:
        """Take a step on each stretch from a place of a text to another one.

        Args:
            ids: the text, at least up to `end`; a step reads as much of it before its stretch as the context holds.
            first: the first token to be learned; that of a text never is, for nothing stands before it.
            end: the first one that is left alone.
        """
        whole = torch.tensor(list(ids[:end]), dtype=torch.int64, device=self.copy.device)
        labels = whole.masked_fill(torch.isin(whole, self.unknown), NOT_SCORED)
        for start in range(max(first, 1), end, self.stretch):  # the first token of a text has nothing before it
            stop = min(start + self.stretch, end)
            seen = slice(max(0, stop - self.context), stop)
            row = labels[seen].clone()
            row[: start - seen.start] = NOT_SCORED
            if (row >= 0).any():
                self.copy.read(whole[None, seen], row[None])

    # ---- beside a story

    def keep_beside(self, story: Path, model_path: str | Path) -> None:
        """Keep what is learned beside a story, and go on with what is kept there.

        Args:
            story: its file.
            model_path: folder of the model; what another one has learned is of no use.
        """
        self.path, self.trained = story.with_name(KEPT), hash_weights(Path(model_path)).encode()
        if not self.path.exists():
            return
        try:
            check_safetensors_header(self.path)
            self.take(read_safetensors(self.path))
        except (UserError, OSError, KeyError, RuntimeError) as problem:
            reason = problem.message if isinstance(problem, UserError) else f"{self.path}: {problem}"
            warn(f"{reason}; the story is learned anew")

    def take(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take what was kept, unless another model has learned it."""
        if bytes(tensors[TRAINED].tolist()) != self.trained:
            say(f"{self.path} was learned by another model; the story is learned anew")
            return
        names = dict(self.copy.twin.named_parameters())
        self.copy.return_to([tensors[name].to(self.copy.device) for name in names])
        self.ids, self.base, self.weights = tensors[LEARNED].tolist(), self.copy.snapshot(), self.make_weights()

    def keep(self) -> None:
        """Write what is learned beside the story; where the disk is full, the writing goes on without."""
        from safetensors.torch import save

        if self.path is None:
            return
        names = [name for name, _ in self.copy.twin.named_parameters()]
        tensors = {name: weight.cpu() for name, weight in zip(names, self.base, strict=True)}
        tensors[LEARNED] = torch.tensor(self.ids, dtype=torch.int64)
        tensors[TRAINED] = torch.tensor(list(self.trained), dtype=torch.uint8)
        try:
            with atomic_writer(self.path) as file:
                file.write(save(tensors))
        except UserError as problem:
            warn(f"{problem.message}; the story is kept, what was learned of it is learned anew the next time")
