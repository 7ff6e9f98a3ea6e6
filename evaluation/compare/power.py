from math import inf, sqrt

from numpy import nan_to_num
from scipy.stats import nct, t


def paired_power(effect: float, paired_sd: float, num_seeds: int, alpha: float) -> float:
    """Chance that a two-sided paired t-test at level `alpha` sees a true difference.

    The statistic is noncentral t with n - 1 degrees of freedom and noncentrality effect sqrt(n) / sd.
    Source: Cohen, "Statistical power analysis for the behavioral sciences", 1988, chapter 2.
    """
    freedom = num_seeds - 1
    critical = t.ppf(1 - alpha / 2, freedom)
    shift = effect * sqrt(num_seeds) / paired_sd
    return 1 - _noncentral(critical, freedom, shift) + _noncentral(-critical, freedom, shift)


def _noncentral(value: float, freedom: int, shift: float) -> float:
    """Noncentral t's distribution function; scipy has NaN for some tails that are below 1e-12."""
    return float(nan_to_num(nct.cdf(value, freedom, shift)))


def detectable_effect(paired_sd: float, num_seeds: int, alpha: float, wanted: float = 0.8) -> float:
    """The difference that is seen with the wanted chance, in the deviation's unit; by bisection."""
    low, high = 0.0, paired_sd
    while paired_power(high, paired_sd, num_seeds, alpha) < wanted:
        low, high = high, 2 * high
        if high == inf:
            raise OverflowError("no difference is large enough")
    for _ in range(60):
        middle = (low + high) / 2
        if paired_power(middle, paired_sd, num_seeds, alpha) < wanted:
            low = middle
        else:
            high = middle
    return high
