from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from evaluation.attention_bench.clock import Sampler
from evaluation.bench.figures import Timing, ratio_of

CACHES = {"warm": False, "cold": True}
"""Name to whether the caches are flushed before each call."""


@dataclass(frozen=True)
class Samples:
    """Seconds of a contender's calls, round by round."""

    rounds: list[list[float]]

    @property
    def count(self) -> int:
        """Of samples."""
        return sum(len(seconds) for seconds in self.rounds)

    def quantile(self, share: float) -> float:
        """Of all samples, between two of them on the line that joins them."""
        return float(np.quantile([second for seconds in self.rounds for second in seconds], share))


def time_interleaved(samplers: Mapping[str, Sampler], trials: int, cold: bool) -> dict[str, Samples]:
    """Times every contender once a round, in turn, so that a slow moment of the machine falls on all of them."""
    samples: dict[str, Samples] = {name: Samples([]) for name in samplers}
    for _ in range(trials):
        for name, sampler in samplers.items():
            samples[name].rounds.append(sampler.sample(cold))
    return samples


def ratio_to(samples: Mapping[str, Samples], name: str, peer: str) -> float:
    """A contender's time over the peer's: the median over rounds of the ratio of the round's medians."""
    timings = {each: Timing(0.0, [median(seconds) for seconds in samples[each].rounds]) for each in (name, peer)}
    return ratio_of(timings, slower=name, faster=peer)
