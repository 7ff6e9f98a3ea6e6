"""`python -m evaluation.compare.simulate`: how often verdicts are wrong, and how often they see a difference."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from scipy.stats import binom

from evaluation.compare.power import paired_power
from evaluation.compare.statistics import ALPHA, compare_pairs
from evaluation.output import print_tables

SEEDS = (3, 5, 10)


def count_verdicts(
    pairs: int, num_seeds: int, *, effect: float = 0.0, spreads: tuple[float, float] = (1.0, 1.0), seed: int = 0
) -> int:
    """Pairs of arms in which a difference is shown.

    Losses are what a seed gives both arms, normal with deviation 1, and what it gives each, normal with deviations
    `spreads`; `effect` is in deviations of the difference.
    """
    random = np.random.default_rng(seed)
    own = np.hypot(*spreads)
    shown = 0
    for _ in range(pairs):
        both = random.normal(size=num_seeds)
        first = both + spreads[0] * random.normal(size=num_seeds) - effect * own
        second = both + spreads[1] * random.normal(size=num_seeds)
        [found] = compare_pairs([(dict(enumerate(first)), dict(enumerate(second)))])
        shown += found.outcome in ("better", "worse")
    return shown


def most_false(pairs: int) -> int:
    """False verdicts that a test at level `ALPHA` stays within 99 times of a hundred: of 1,000 pairs 66."""
    return int(binom.ppf(0.99, pairs, ALPHA)) - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables; 1 where there are more false verdicts than chance explains."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.compare.simulate", description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000, help="simulated for each line")
    given = parser.parse_args(arguments)
    bound = most_false(given.pairs)
    nulls = []
    for num_seeds in SEEDS:
        for spreads in ((1.0, 1.0), (1.0, 5.0)):
            nulls.append((num_seeds, spreads, count_verdicts(given.pairs, num_seeds, spreads=spreads)))
    powers = [
        (
            n,
            effect,
            count_verdicts(given.pairs, n, effect=effect) / given.pairs,
            paired_power(effect, 1.0, n, ALPHA),
        )
        for n, effect in ((5, 1.5), (5, 1.7), (6, 1.5))
    ]
    print_tables(
        Console(highlight=False),
        [
            (
                f"false verdicts in {given.pairs:,} pairs without a difference; {bound} allowed",
                ["seeds", "deviations of the arms", "false"],
                [[str(n), f"{a:g}, {b:g}", str(found)] for n, (a, b), found in nulls],
            ),
            (
                "pairs with a difference in which it is shown",
                ["seeds", "difference, paired deviations", "simulated", "exact"],
                [[str(n), f"{effect:g}", f"{found:.1%}", f"{exact:.1%}"] for n, effect, found, exact in powers],
            ),
        ],
    )
    return int(any(found > bound for *_, found in nulls))


if __name__ == "__main__":
    sys.exit(main())
