from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from parallax.data.hashing import hash_integers
from parallax.data.mixture import Mixture
from parallax.data.order import SampleOrder
from parallax.data.token_split import TokenSplit
from parallax.data.windows import Windows
from parallax.errors import DataError

_SOURCE_SALT = 0x50C5


@dataclass(frozen=True)
class LoaderSource:
    """Tokens that samples are taken from."""

    split: TokenSplit
    fingerprint: str
    """`Corpus.fingerprint`, kept in the loader's state."""
    weight: int = 1
    """Samples of a period that come from here; see `Mixture`."""


@final
class Loader:
    """Samples of a run: sample i is a pure function of (seed, i), and the state is one cursor.

    With several sources, `Mixture` says which one sample i is from and which of that source's samples it is;
    each source has windows, an order and epochs of its own. The first source's are those it has alone.

    Neither ranks nor workers enter: every rank asks for the rows of the global batch that are its own
    (`rank_rows`), and a run that continues on other ranks sees the same samples.

    Args:
        sources: Where the samples come from, the main source first.
        max_seq_len: T.
        seed: Of the order of windows and of their offsets.
        limit_samples: Use only the first that many samples of the order: sample i is sample i mod limit.

    Raises:
        DataError: a split is shorter than one window.
    """

    def __init__(
        self,
        sources: Sequence[LoaderSource],
        *,
        max_seq_len: int,
        seed: int,
        limit_samples: int | None = None,
    ) -> None:
        if limit_samples is not None and limit_samples < 1:
            raise ValueError(f"limit_samples={limit_samples} must be at least 1")
        self._mixture = Mixture([source.weight for source in sources])
        seeds = [hash_integers(seed, _SOURCE_SALT, number) if number else seed for number in range(len(sources))]
        self._windows = [Windows(s.split, max_seq_len, own) for s, own in zip(sources, seeds, strict=True)]
        self._orders = [SampleOrder(w.num_windows, own) for w, own in zip(self._windows, seeds, strict=True)]
        self._max_seq_len = max_seq_len
        self._limit = limit_samples
        self._identity = _identity(sources) | {
            "seed": seed,
            "max_seq_len": max_seq_len,
            "limit_samples": limit_samples,
        }
        self.cursor = 0
        """Index of the next sample."""

    @property
    def samples_per_epoch(self) -> int:
        """Samples after which every window of the first source, as far as it is in use, was seen once."""
        samples = self._mixture.samples_until(0, self._windows[0].num_windows)
        return samples if self._limit is None else min(self._limit, samples)

    @property
    def num_windows(self) -> list[int]:
        """Windows of each source: its own epoch."""
        return [windows.num_windows for windows in self._windows]

    def source_counts(self, num_samples: int) -> list[int]:
        """How many of the first `num_samples` samples come from each source."""
        if self._limit is None:
            return self._mixture.counts(num_samples)
        rounds, rest = divmod(num_samples, self._limit)
        whole, begun = self._mixture.counts(self._limit), self._mixture.counts(rest)
        return [rounds * one + more for one, more in zip(whole, begun, strict=True)]

    def samples(self, first: int, count: int) -> Tensor:
        """(count, T + 1) int64 token ids of the samples [first, first + count); the cursor stays."""
        index = np.arange(first, first + count, dtype=np.int64)
        if self._limit is not None:
            index %= self._limit
        sources, numbers = self._mixture.locate(index)
        rows = np.empty((count, self._max_seq_len + 1), dtype=np.int64)
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            epochs, windows = self._orders[source].locate(numbers[places])
            for place, epoch, window in zip(places.tolist(), epochs.tolist(), windows.tolist(), strict=True):
                rows[place] = self._windows[source].read(epoch, window)
        return torch.from_numpy(rows)

    def next(self, count: int) -> Tensor:
        """The `count` samples at the cursor, which moves behind them; shape (count, T + 1)."""
        return self.next_rows(count, 0, 1)

    def next_rows(self, global_batch: int, rank: int, world_size: int) -> Tensor:
        """This rank's rows of the global batch at the cursor, which moves behind the whole batch on every rank."""
        rows = rank_rows(global_batch, rank, world_size)
        batch = self.samples(self.cursor + rows.start, rows.stop - rows.start)
        self.cursor += global_batch
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what it is a cursor of."""
        return {"cursor": self.cursor, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Moves to a saved cursor.

        Raises:
            DataError: the state belongs to other data or weights, another seed, window length or limit.
        """
        # A state of one source names no weights, so a key may be on either side only.
        for key in [*self._identity, *(key for key in state if key not in self._identity and key != "cursor")]:
            saved, ours = state.get(key), self._identity.get(key)
            if saved != ours:
                raise DataError(
                    f"the saved position in the data is for {key}={saved!r}, this run has {key}={ours!r}; "
                    f"continue with the same data and settings, or start a new run"
                )
        self.cursor = int(state["cursor"])


def _identity(sources: Sequence[LoaderSource]) -> dict[str, Any]:
    """What the samples are taken from, as JSON values."""
    if len(sources) == 1:
        return {"fingerprint": sources[0].fingerprint}
    return {
        "fingerprint": [source.fingerprint for source in sources],
        "weights": [source.weight for source in sources],
    }


def rank_rows(global_batch: int, rank: int, world_size: int) -> slice:
    """Rows of a global batch that belong to data-parallel rank `rank`: block `rank` of `world_size` equal ones.

    Raises:
        ValueError: the batch does not divide evenly, or the rank is not one of them.
    """
    if global_batch % world_size or not 0 <= rank < world_size:
        raise ValueError(f"global_batch={global_batch} over {world_size} ranks has no equal share for rank {rank}")
    rows = global_batch // world_size
    return slice(rank * rows, (rank + 1) * rows)
