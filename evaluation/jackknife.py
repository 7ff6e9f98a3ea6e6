from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A figure over windows of text, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimates:
    """Many figures of one kind, in arrays of the same shape."""

    value: Array
    low: Array
    high: Array

    def at(self, *index: int) -> Estimate:
        """The figure at a place."""
        return Estimate(*(float(array[index]) for array in (self.value, self.low, self.high)))

    def __getitem__(self, index: Any) -> "Estimates":
        return Estimates(self.value[index], self.low[index], self.high[index])


def jackknife(sums: Sequence[Array], statistic: Callable[..., Array]) -> Estimates:
    """A statistic of sums over W windows, and its 95 % t interval from leaving out one window at a time.

    With S the sums over all windows and S_(w) those without window w, theta = f(S), theta_w = f(S_(w)):
    se^2 = (W - 1) / W sum_w (theta_w - mean theta_w)^2, and the interval is theta ± t_{W-1} se. Of a mean it
    is the ordinary t interval. Windows count as independent of each other.

    Args:
        sums: arrays (W, ...) of what each window adds.
        statistic: of the totals, one argument for each of `sums`; called with totals (...) and (W, ...).

    Raises:
        ValueError: fewer than 2 windows.

    Source: Efron and Stein, "The jackknife estimate of variance", 1981.
    """
    windows = len(sums[0])
    if windows < 2:
        raise ValueError(f"{windows} windows have no spread; at least 2 are needed")
    totals = [array.sum(0) for array in sums]
    value = np.asarray(statistic(*totals), dtype=np.float64)
    others = statistic(*(total - array for total, array in zip(totals, sums, strict=True)))
    error = np.sqrt((windows - 1) / windows * np.square(others - others.mean(0)).sum(0))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, windows - 1) * error
    return Estimates(value, value - half, value + half)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Sums per unit; trailing dimensions that the denominator lacks are added."""
    denominator = np.asarray(denominator)
    missing = np.ndim(numerator) - denominator.ndim
    quotient: Array = numerator / denominator.reshape(denominator.shape + (1,) * missing)
    return quotient
