from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t

ALPHA = 0.05
"""Chance of any false verdict among all pairs that are compared."""

Outcome = Literal["better", "worse", "no difference shown", "no statement"]


@dataclass(frozen=True)
class PairedDifference:
    """First minus second over seeds that both have; negative: the first has the lower loss."""

    mean: float
    half_width: float | None
    """Of the interval at `level`; None: one seed."""
    p: float | None
    """Two-sided, of this pair alone."""
    adjusted_p: float | None
    """After Holm's correction over all pairs of the comparison."""
    level: float
    """1 - alpha / m: the intervals of all m pairs together hold with at least 1 - alpha."""
    seeds: tuple[int, ...]

    @property
    def outcome(self) -> Outcome:
        """By the interval, so that what is printed and what is said never disagree."""
        if self.half_width is None:
            return "no statement"
        if abs(self.mean) <= self.half_width:
            return "no difference shown"
        return "better" if self.mean < 0 else "worse"


def compare_pairs(pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> list[PairedDifference]:
    """Paired t-tests and intervals, corrected for the number of pairs.

    With d_i the difference at seed i, d their mean and s their standard deviation over n seeds: d ± t s / sqrt(n),
    where t is the quantile 1 - alpha / 2m of Student's distribution with n - 1 degrees of freedom and m the number
    of pairs (Bonferroni). Differences are taken within a seed, so that arms may vary unequally. Holm's adjusted p
    is given beside it; it can be below alpha where the interval still holds 0, and then no difference is said to
    be shown.

    Args:
        pairs: seed -> loss of the first and of the second arm.

    Raises:
        ValueError: a pair has no seed in common.

    Source: Student, "The probable error of a mean", 1908; Holm, "A simple sequentially rejective multiple test
    procedure", 1979.
    """
    level = 1 - ALPHA / max(1, len(pairs))
    found = [_difference(first, second, level) for first, second in pairs]
    adjusted = _holm([one.p for one in found])
    return [
        PairedDifference(one.mean, one.half_width, one.p, p, level, one.seeds)
        for one, p in zip(found, adjusted, strict=True)
    ]


def _difference(first: Mapping[int, float], second: Mapping[int, float], level: float) -> PairedDifference:
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        raise ValueError("no seed in common")
    d = np.array([first[seed] - second[seed] for seed in seeds])
    n, mean = len(d), float(d.mean())
    if n < 2:
        return PairedDifference(mean, None, None, None, level, seeds)
    error = float(d.std(ddof=1)) / n**0.5
    half = float(t.ppf((1 + level) / 2, n - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0)
    return PairedDifference(mean, half, p, None, level, seeds)


def _holm(ps: Sequence[float | None]) -> list[float | None]:
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted
