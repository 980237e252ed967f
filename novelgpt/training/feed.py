"""Rows of a batch -> tensors on the device that computes them.

On a GPU the whole corpus lies in its memory as 16-bit numbers when it fits (a novel takes 10 MB), so that only the
starts of the windows and the replaced inputs travel; otherwise all rows come from the memory map through pinned
memory::

    starts (B,) ─ corpus on the GPU ─┐
                                     ├─ input ids and labels (B, T), filled up with rows that count nothing
    input ids, labels (B, T) ─ host ─┘
"""

import numpy as np
import torch

from novelgpt.training.windows import NOT_SCORED, Batch, Stream

SHARE_FOR_CORPUS = 8  # of the free memory, at most one part in this many


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

    # from the corpus on the device, where of the inputs only those travel that are replaced; or all by way of the host
    input_ids, labels = batch.input_ids[pick], batch.labels[pick]  # (B, T)
    if corpus is not None and batch.is_windows:
        windows = cut_windows(corpus, send(batch.starts[pick], device), labels.shape[1])  # (B, T)
        places = np.flatnonzero(input_ids != labels)  # (K,)
        values = send(input_ids.ravel()[places], device)
        input_ids = windows.flatten().index_copy(0, send(places, device), values).view_as(windows)
        labels = windows  # not the same object, as by the other way: a compiled network would tell them apart
    else:
        input_ids, labels = send(input_ids, device), send(labels, device)
    if count > len(rows):
        labels[len(rows) :] = NOT_SCORED
    return input_ids, labels


def send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Bring numbers to a device; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
