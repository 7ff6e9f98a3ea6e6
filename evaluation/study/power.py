from evaluation.compare.power import detectable_effect, paired_power
from evaluation.compare.statistics import ALPHA
from evaluation.study.design import Power


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
