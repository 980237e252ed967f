"""Pieces laid end to end: one long row of token ids that never has to fit into memory."""

from collections.abc import Sequence

import numpy as np

SEARCH_BLOCK = 1 << 22  # tokens looked at a time


class TokenStream:
    """A row of token ids in several arrays, read as if it were one.

    Args:
        arrays: one-dimensional, in order, all of one type; memory maps are read only where they are asked.
        dtype: type of the ids; needed only when there is no array.

    >>> stream = TokenStream([np.array([7, 8], np.uint16), np.array([9], np.uint16)])
    >>> len(stream), stream[1:3].tolist(), stream.gather(np.array([0, 1]), 2).tolist()
    (3, [8, 9], [[7, 8], [8, 9]])
    """

    def __init__(self, arrays: Sequence[np.ndarray], dtype: type | np.dtype = np.uint16):
        self.arrays = list(arrays)
        self.dtype = self.arrays[0].dtype if self.arrays else np.dtype(dtype)
        self.ends = np.cumsum([len(array) for array in self.arrays], dtype=np.int64)  # (pieces,)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, span: slice) -> np.ndarray:
        """Return the ids of a slice without a step (N,), across borders; like a list it ends where the stream ends."""
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError(f"step {step}, expected a slice without a step")
        return self.copy_span(start, max(start, stop))

    def copy_span(self, start: int, stop: int) -> np.ndarray:
        """Copy the ids from start up to stop (stop - start,), both inside the stream."""
        ids = np.empty(stop - start, self.dtype)
        index, place = int(np.searchsorted(self.ends, start, side="right")), start
        while place < stop:
            array, end = self.arrays[index], min(stop, int(self.ends[index]))
            offset = len(array) - int(self.ends[index])
            ids[place - start : end - start] = array[place + offset : end + offset]
            index, place = index + 1, end
        return ids

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Return windows (B, length) that begin at the given places.

        Args:
            starts: int64 (B,); every window lies inside the stream.
            length: tokens of each window.

        Raises:
            IndexError: a window reaches beyond the stream.
        """
        windows = np.empty((len(starts), length), self.dtype)  # (B, length)
        for row, start in enumerate(np.asarray(starts).tolist()):
            if not 0 <= start <= len(self) - length:
                raise IndexError(f"window {start}:{start + length} reaches beyond the stream of {len(self)} tokens")
            windows[row] = self.copy_span(start, start + length)
        return windows

    def find(self, token_id: int) -> np.ndarray:
        """Return the places of a token, int64 (N,); those of [CLS] are where documents begin, and the end."""
        found = [
            start + np.flatnonzero(self[start : start + SEARCH_BLOCK] == token_id)
            for start in range(0, len(self), SEARCH_BLOCK)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def read(self) -> np.ndarray:
        """Return the whole stream (N,) in memory."""
        return self[:]
