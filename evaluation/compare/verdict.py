from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.compare.arms import Arm
from evaluation.compare.statistics import PairedDifference, compare_pairs
from parallax.errors import RunError


@dataclass(frozen=True)
class Verdict:
    """What can be said of two arms."""

    first: str
    second: str
    difference: PairedDifference

    @property
    def words(self) -> str:
        """The plain answer, such as `better by 0.021 ± 0.008 nats`."""
        found = self.difference
        if found.half_width is None:
            return f"one seed: no statement (difference {found.mean:+.3f} nats)"
        if found.outcome in ("better", "worse"):
            return f"{found.outcome} by {abs(found.mean):.3f} ± {found.half_width:.3f} nats"
        return f"no difference shown ({found.mean:+.3f} ± {found.half_width:.3f} nats)"

    def __str__(self) -> str:
        seeds = len(self.difference.seeds)
        return f"{self.first} against {self.second}: {self.words}, {seeds} paired seed{'s' if seeds > 1 else ''}"


def judge(arms: Sequence[Arm], pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """A verdict on the final validation loss for each pair, corrected for their number.

    Raises:
        RunError: an arm is unknown, or two have no seed in common.
    """
    by_name = {arm.name: arm for arm in arms}
    for pair in pairs:
        for name in pair:
            if name not in by_name:
                raise RunError(f"no arm {name!r}; there are: {', '.join(by_name)}")
        if not by_name[pair[0]].finals.keys() & by_name[pair[1]].finals.keys():
            raise RunError(f"{pair[0]} and {pair[1]} have no seed in common, so that they cannot be paired")
    found = compare_pairs([(by_name[first].finals, by_name[second].finals) for first, second in pairs])
    return [Verdict(*pair, difference) for pair, difference in zip(pairs, found, strict=True)]
