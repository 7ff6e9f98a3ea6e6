from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from statistics import mean

from evaluation.study.plan import PlannedRun
from evaluation.study.status import Stand, Status
from parallax.errors import RunError


@dataclass(frozen=True)
class Tuned:
    """The learning rate of an arm, and what it was chosen from."""

    arm: str
    rate: float
    losses: Mapping[float, float]
    """Rate -> mean final validation loss over the tuning seeds; infinite where a run diverged."""

    @property
    def edge(self) -> str | None:
        """Where the best rate is the lowest or highest tried, so that a better one may lie beyond."""
        if len(self.losses) == 1:
            return None
        if self.rate == min(self.losses):
            return "lowest"
        return "highest" if self.rate == max(self.losses) else None

    @property
    def warning(self) -> str | None:
        """A sentence for the reader."""
        if self.edge is None:
            return None
        return f"{self.arm}: the best rate, {self.rate:g}, is the {self.edge} tried; a better one may lie beyond"


def tune(found: Mapping[PlannedRun, Status]) -> dict[str, Tuned]:
    """The best rate of every arm by the final validation loss; of equal ones the lower.

    Raises:
        RunError: all runs of an arm diverged.
    """
    losses: dict[str, dict[float, list[float]]] = {}
    for run, status in found.items():
        loss = status.val_loss if status.stand is Stand.DONE and status.val_loss is not None else inf
        losses.setdefault(run.arm, {}).setdefault(run.rate, []).append(loss)
    return {arm: _best(arm, rates) for arm, rates in losses.items()}


def _best(arm: str, found: Mapping[float, Iterable[float]]) -> Tuned:
    means = {rate: mean(values) for rate, values in sorted(found.items())}
    rate = min(means, key=lambda rate: means[rate])
    if not isfinite(means[rate]):
        raise RunError(f"arm {arm}: every rate tried diverged; add lower ones to tuning.rates")
    return Tuned(arm, rate, means)
