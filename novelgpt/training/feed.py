"""Rows of a batch -> tensors on the device that computes them.

On a GPU the whole corpus lies in its memory as 16-bit numbers when it fits (a novel takes 10 MB), so that only the
starts of the windows travel; otherwise the rows come from the memory map through pinned memory::

    starts (B,) ─ corpus on the GPU ─┐
                                     ├─ input ids and labels (B, T), filled up with rows that count nothing
    input ids, labels (B, T) ─ host ─┘
"""

import numpy as np
import torch

from novelgpt.training.windows import IGNORED, Batch, Stream

SHARE_FOR_CORPUS = 8  # of the free memory, at most one part in so many


def load_corpus(stream: Stream | None, device: torch.device) -> torch.Tensor | None:
    """Return the stream as int16 or int32 (N,) on a GPU; None on other devices or where it has no use or no room."""
    if stream is None or device.type != "cuda":
        return None

    # it must leave room for the activations, which are not there yet
    free, _total = torch.cuda.mem_get_info(device)
    if len(stream) * stream.dtype.itemsize > free // SHARE_FOR_CORPUS:
        return None
    return to_signed(stream.read()).to(device)


def to_signed(tokens: np.ndarray) -> torch.Tensor:
    """Return uint16 or uint32 ids as the signed tensor with the same bits."""
    return torch.from_numpy(tokens.view(np.int16 if tokens.dtype == np.uint16 else np.int32))


def cut_windows(corpus: torch.Tensor, starts: torch.Tensor, window: int) -> torch.Tensor:
    """Cut windows (B, window) int64 at starts (B,) int64 out of a corpus (N,) of int16 or int32 on its own device."""
    places = starts[:, None] + torch.arange(window, device=corpus.device)  # (B, T)
    mask = 0xFFFF if corpus.dtype == torch.int16 else 0xFFFFFFFF  # the ids are unsigned
    return corpus[places].long() & mask  # (B, T)


def rows_to_device(
    batch: Batch, rows: range, device: torch.device, corpus: torch.Tensor | None, *, least: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels (B, T) int64 of some rows, filled up to the least with rows that count nothing.

    A process without rows computes one such row, so that all meet in the pass.
    """
    count = max(len(rows), least)
    pick = slice(rows.start, rows.stop)
    if count > len(rows):
        pick = np.full(count, rows.start if len(rows) else 0)
        pick[: len(rows)] = rows

    # from the corpus on the device, or by way of the host
    if corpus is not None and batch.is_windows:
        starts = torch.from_numpy(batch.starts[pick])
        starts = starts.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else starts  # (B,)
        input_ids = cut_windows(corpus, starts, batch.input_ids.shape[1])
        labels = input_ids.clone()  # two objects, as by the other way: a compiled network would tell them apart
    else:
        input_ids, labels = (torch.from_numpy(part[pick]) for part in (batch.input_ids, batch.labels))  # (B, T)
        if device.type == "cuda":
            input_ids, labels = input_ids.pin_memory(), labels.pin_memory()
        input_ids, labels = input_ids.to(device, non_blocking=True), labels.to(device, non_blocking=True)
    if count > len(rows):
        labels[len(rows) :] = IGNORED
    return input_ids, labels
