from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from parallax.data.order import SampleOrder
from parallax.data.token_split import TokenSplit
from parallax.data.windows import Windows
from parallax.errors import DataError


@final
class Loader:
    """Samples of a run: sample i is a pure function of (seed, i), and the state is one cursor.

    Neither ranks nor workers enter: every rank asks for the rows of the global batch that are its own
    (`rank_rows`), and a run that continues on other ranks sees the same samples.

    Args:
        split: The tokens.
        max_seq_len: T.
        seed: Of the order of windows and of their offsets.
        corpus_fingerprint: `Corpus.fingerprint`, kept in the state.
        limit_samples: Use only the first that many samples of the order: sample i is sample i mod limit.

    Raises:
        DataError: the split is shorter than one window.
    """

    def __init__(
        self,
        split: TokenSplit,
        *,
        max_seq_len: int,
        seed: int,
        corpus_fingerprint: str,
        limit_samples: int | None = None,
    ) -> None:
        if limit_samples is not None and limit_samples < 1:
            raise ValueError(f"limit_samples={limit_samples} must be at least 1")
        self._windows = Windows(split, max_seq_len, seed)
        self._order = SampleOrder(self._windows.num_windows, seed)
        self._limit = limit_samples
        self._identity: dict[str, int | str | None] = {
            "seed": seed,
            "fingerprint": corpus_fingerprint,
            "max_seq_len": max_seq_len,
            "limit_samples": limit_samples,
        }
        self.cursor = 0
        """Index of the next sample."""

    @property
    def samples_per_epoch(self) -> int:
        """Samples after which every one of the windows in use was seen once."""
        windows = self._windows.num_windows
        return windows if self._limit is None else min(self._limit, windows)

    def samples(self, first: int, count: int) -> Tensor:
        """(count, T + 1) int64 token ids of the samples [first, first + count); the cursor stays."""
        index = np.arange(first, first + count, dtype=np.int64)
        if self._limit is not None:
            index %= self._limit
        epochs, windows = self._order.locate(index)
        rows = np.empty((count, self._windows.max_seq_len + 1), dtype=np.int64)
        for row, epoch, window in zip(rows, epochs.tolist(), windows.tolist(), strict=True):
            row[:] = self._windows.read(epoch, window)
        return torch.from_numpy(rows)

    def next(self, count: int) -> Tensor:
        """The `count` samples at the cursor, which moves behind them; shape (count, T + 1)."""
        batch = self.samples(self.cursor, count)
        self.cursor += count
        return batch

    def state_dict(self) -> dict[str, int | str | None]:
        """The cursor, and what it is a cursor of."""
        return {"cursor": self.cursor, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Moves to a saved cursor.

        Raises:
            DataError: the state belongs to other data, another seed, window length or limit.
        """
        for key, ours in self._identity.items():
            saved = state.get(key)
            if saved != ours:
                raise DataError(
                    f"the saved position in the data is for {key}={saved!r}, this run has {key}={ours!r}; "
                    f"continue with the same data and settings, or start a new run"
                )
        self.cursor = int(state["cursor"])


def rank_rows(global_batch: int, rank: int, world_size: int) -> slice:
    """Rows of a global batch that belong to data-parallel rank `rank`: block `rank` of `world_size` equal ones.

    Raises:
        ValueError: the batch does not divide evenly, or the rank is not one of them.
    """
    if global_batch % world_size or not 0 <= rank < world_size:
        raise ValueError(f"global_batch={global_batch} over {world_size} ranks has no equal share for rank {rank}")
    rows = global_batch // world_size
    return slice(rank * rows, (rank + 1) * rows)
