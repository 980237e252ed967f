"""Rows of a batch -> tensors on the device, without making the device wait.

On a GPU the whole corpus lies there as 16-bit numbers when it fits (a novel takes 10 MB), so that only the starts of
the windows travel; otherwise the rows come from the memory map through pinned memory.
"""

import numpy as np
import torch

from novelgpt.corpus.stream import TokenStream
from novelgpt.training.windows import IGNORED, Batch

SHARE_FOR_CORPUS = 8  # of the free memory, at most one part in so many


def load_corpus(stream: TokenStream | None, device: torch.device) -> torch.Tensor | None:
    """Return the stream as int16 or int32 (N,) on a GPU; None on other devices or where it has no use or no room."""
    if stream is None or device.type != "cuda":
        return None
    free, _total = torch.cuda.mem_get_info(device)
    if len(stream) * stream.dtype.itemsize > free // SHARE_FOR_CORPUS:
        return None
    return to_signed(stream.read()).to(device)


def to_signed(tokens: np.ndarray) -> torch.Tensor:
    """Return uint16 or uint32 ids as the signed tensor with the same bits."""
    return torch.from_numpy(tokens.view(np.int16 if tokens.dtype == np.uint16 else np.int32))


def cut_windows(corpus: torch.Tensor, starts: torch.Tensor, window: int) -> torch.Tensor:
    """Cut windows out of a corpus on its own device.

    Args:
        corpus: (N,) int16 or int32, bits of unsigned ids.
        starts: (B,) int64.
        window: tokens a row.

    Returns:
        (B, window) int64.
    """
    places = starts[:, None] + torch.arange(window, device=corpus.device)  # (B, T)
    return corpus[places].long() & (0xFFFF if corpus.dtype == torch.int16 else 0xFFFFFFFF)


def rows_to_device(
    batch: Batch, rows: range, device: torch.device, corpus: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels (B, T) int64 of some rows; without rows, one row that counts nothing."""
    pick = slice(rows.start, rows.stop) if len(rows) else slice(0, 1)
    if corpus is not None and batch.is_windows and len(rows):
        starts = torch.from_numpy(batch.starts[pick]).pin_memory().to(device, non_blocking=True)
        input_ids = cut_windows(corpus, starts, batch.input_ids.shape[1])
        return input_ids, input_ids
    input_ids, labels = (torch.from_numpy(part[pick]) for part in (batch.input_ids, batch.labels))
    if not len(rows):
        labels = torch.full_like(labels, IGNORED)
    if device.type == "cuda":
        input_ids, labels = input_ids.pin_memory(), labels.pin_memory()
    return input_ids.to(device, non_blocking=True), labels.to(device, non_blocking=True)
