import heapq
from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@final
class Mixture:
    """Which source sample i comes from, and which of that source's samples it is: a pure function of i.

    With weights w_s that add up to M, every prefix of n samples has c_s(n) of source s, where

        |c_s(n) - n w_s / M| <= 1 - 1 / (2 k - 2) < 1        for k >= 2 sources,

    so whatever run of samples a batch, a rank or an epoch takes, its shares are right within two. The order
    repeats after M samples, of which each source has exactly w_s; a table of one period is all that is held.

    Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980. The x-th sample of
    source s (x = 0, 1, ...) may not come before s lags by 1 / (2 k - 2), and must come before it lags by more
    than 1 - 1 / (2 k - 2); of those that may come, the one that must come first is taken. In whole numbers.

    Args:
        weights: w_s, whole and at least 1, without a common divisor (else the table is longer than need be).
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or min(weights) < 1:
            raise ValueError(f"weights {list(weights)} must be one or more whole numbers of at least 1")
        self.weights = tuple(weights)
        self.period = sum(weights)
        self._owner = _assign(self.weights)
        self._shares = np.array(self.weights)
        self._rank = np.empty(self.period, dtype=np.int64)
        first = np.repeat(np.cumsum(self._shares) - self._shares, self._shares)
        self._rank[np.argsort(self._owner, kind="stable")] = np.arange(self.period) - first

    def locate(self, sample_index: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """(source, number of the sample within that source) of each sample; indices are at least 0."""
        index = np.asarray(sample_index, dtype=np.int64)
        if index.size and index.min() < 0:
            raise ValueError(f"sample index {index.min()} is negative")
        rounds, place = np.divmod(index, self.period)
        source = self._owner[place].astype(np.int64)
        return source, rounds * self._shares[source] + self._rank[place]

    def counts(self, num_samples: int) -> list[int]:
        """How many of the first `num_samples` samples come from each source."""
        rounds, rest = divmod(num_samples, self.period)
        begun = np.bincount(self._owner[:rest], minlength=len(self.weights))
        return [rounds * weight + int(more) for weight, more in zip(self.weights, begun, strict=True)]

    def samples_until(self, source: int, count: int) -> int:
        """The fewest samples of the mixture that hold `count` (at least 1) samples of a source."""
        rounds, rest = divmod(count - 1, self.weights[source])
        return rounds * self.period + int(np.flatnonzero(self._owner == source)[rest]) + 1


def _assign(weights: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """(M,) the source of each sample of one period."""
    period = sum(weights)
    owner = np.zeros(period, dtype=np.int32)
    if len(weights) == 1:
        return owner
    slack = 2 * len(weights) - 2

    def first_place(source: int, taken: int) -> int:
        """The smallest n with n w / M - taken >= 1 / slack; the sample is the n-th or a later one."""
        return -(-period * (slack * taken + 1) // (slack * weights[source]))

    def last_place(source: int, taken: int) -> int:
        """One more than the largest n with n w / M - taken <= 1 - 1 / slack."""
        return period * (slack * taken + slack - 1) // (slack * weights[source]) + 1

    waiting = [(first_place(source, 0), source) for source in range(len(weights))]
    heapq.heapify(waiting)
    ready: list[tuple[int, int]] = []
    taken = [0] * len(weights)
    for place in range(1, period + 1):
        while waiting and waiting[0][0] <= place:
            _, source = heapq.heappop(waiting)
            heapq.heappush(ready, (last_place(source, taken[source]), source))
        _, source = heapq.heappop(ready)
        owner[place - 1] = source
        taken[source] += 1
        heapq.heappush(waiting, (first_place(source, taken[source]), source))
    assert tuple(taken) == weights, "Tijdeman's theorem"
    return owner
