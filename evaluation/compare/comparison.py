import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from evaluation.compare.arms import Arm, differing, environments
from evaluation.compare.beside import BesideSection
from evaluation.compare.curves import Axis, cost_of, curve_of, pareto
from evaluation.compare.verdict import Verdict
from evaluation.output import plain
from parallax.errors import RunError


@dataclass(frozen=True)
class Comparison:
    """Arms, what was found of them, and all that is drawn: reports are made from this and nothing else."""

    title: str
    axis: Axis
    arms: tuple[Arm, ...]
    baseline: str
    verdicts: tuple[Verdict, ...]
    sections: tuple[BesideSection, ...] = ()
    """What was found of single runs' tracks and tasks."""

    @property
    def runs(self) -> list[Any]:
        """Of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def settings(self) -> dict[str, list[Any]]:
        """Setting -> its value in each arm, of those in which arms differ."""
        return differing([arm.runs[0] for arm in self.arms])

    @property
    def environments(self) -> dict[str, list[str]]:
        """What else was not the same for all runs, by arm: versions, commit, hosts, ranks, engine."""
        return dict(environments(self.arms))

    @cached_property
    def front(self) -> list[str]:
        """Arms that no other beats in both loss and cost."""
        return pareto([(arm.name, cost_of(arm, self.axis), arm.mean_final) for arm in self.arms])

    @cached_property
    def data(self) -> dict[str, Any]:
        """All of it as plain values: what report.json holds, and pictures and pages are drawn from."""
        found = {
            "title": self.title,
            "by": self.axis,
            "baseline": self.baseline,
            "validated_on": list(self.runs[0].validation),
            "arms": [self._arm(arm) for arm in self.arms],
            "pairs": [
                {"first": v.first, "second": v.second, "verdict": v.words, **asdict(v.difference)}
                for v in self.verdicts
            ],
            "settings": self.settings,
            "environment": self.environments,
        }
        if self.sections:
            # By content: where they lie is not drawn.
            found["sections"] = [{"kind": one.kind, "sha256": one.sha256} for one in self.sections]
        values: dict[str, Any] = plain(found)
        return values

    def _arm(self, arm: Arm) -> dict[str, Any]:
        return {
            "name": arm.name,
            "cost": cost_of(arm, self.axis),
            "on_front": arm.name in self.front,
            **asdict(arm.runs[0].costs),
            "mean_final": arm.mean_final,
            "mean_best": arm.mean_best,
            "finals": {str(seed): loss for seed, loss in arm.finals.items()},
            "curve": [asdict(point) for point in curve_of(arm, self.axis)],
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what is drawn: equal for equal runs, wherever and whenever they are compared."""
        return hashlib.sha256(json.dumps(self.data, sort_keys=True).encode()).hexdigest()


def baseline_of(arms: Sequence[Arm], wanted: str | None) -> str:
    """The arm that others are compared with: the one that is named or holds the named run, else the first."""
    if wanted is None:
        return arms[0].name
    for arm in arms:
        if wanted == arm.name or any(wanted in (run.name, run.source) for run in arm.runs):
            return arm.name
    raise RunError(f"--baseline {wanted}: no such arm or run; there are: {', '.join(arm.name for arm in arms)}")
