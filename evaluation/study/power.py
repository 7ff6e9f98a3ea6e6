from math import inf, sqrt

from numpy import nan_to_num
from scipy.stats import nct, t

from evaluation.compare.statistics import ALPHA
from evaluation.study.design import Power


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


def power_statement(power: Power, num_seeds: int, num_comparisons: int) -> list[str]:
    """What can be expected of the study, in sentences; its intervals are at 1 - alpha / m for m comparisons."""
    level = ALPHA / num_comparisons
    effect, deviation = power.smallest_effect, power.paired_sd
    alone = paired_power(effect, deviation, num_seeds, ALPHA)
    corrected = paired_power(effect, deviation, num_seeds, level)
    seen = detectable_effect(deviation, num_seeds, level)
    return [
        f"Smallest difference that matters: {effect:g} nats a token. Paired standard deviation: {deviation:g} "
        f"({power.source}).",
        f"With {num_seeds} paired seeds, a difference of that size is shown by {corrected:.0%} of studies with "
        f"{num_comparisons} comparison(s), whose intervals are at {1 - level:.2%}; as the only comparison, by "
        f"{alone:.0%}.",
        f"80 % of studies show one of {seen:.3g} nats.",
    ]
