from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from evaluation.compare.arms import Arm
from evaluation.compare.compared_run import ComparedRun
from parallax.metrics.journal import Record

Axis = Literal["params", "flops", "tokens", "time", "kv_bytes"]
AXES: tuple[Axis, ...] = ("params", "flops", "tokens", "time", "kv_bytes")
LABELS = {
    "params": "parameters",
    "flops": "training FLOPs",
    "tokens": "training tokens",
    "time": "seconds in training steps",
    "kv_bytes": "bytes of KV cache a token",
}
_JOURNAL_KEYS = {"flops": "flops", "tokens": "tokens", "time": "seconds"}


@dataclass(frozen=True)
class Point:
    """An arm at one step that all its runs were validated at."""

    x: float
    """Mean over seeds, in the axis' unit."""
    loss: float
    """Mean validation loss over seeds, nats a token."""
    low: float
    high: float
    """The lowest and highest of a seed."""


def curve_of(arm: Arm, axis: Axis) -> list[Point]:
    """Validation loss over tokens, FLOPs or seconds; over tokens where the axis is a size that training leaves."""
    by_step: dict[int, list[Record]] = {}
    for run in arm.runs:
        for record in run.measured:
            by_step.setdefault(record["step"], []).append(record)
    key = _JOURNAL_KEYS[curve_axis(axis)]
    points = []
    for _, records in sorted(by_step.items()):
        if len(records) == len(arm.runs):
            losses = [float(record["val_loss"]) for record in records]
            points.append(Point(mean(float(r[key]) for r in records), mean(losses), min(losses), max(losses)))
    return points


def curve_axis(axis: Axis) -> Axis:
    """What the curves are drawn over."""
    return axis if axis in _JOURNAL_KEYS else "tokens"


def cost_of(arm: Arm, axis: Axis) -> float:
    """What the arm has cost at its end, mean over seeds."""
    return mean(_cost(run, axis) for run in arm.runs)


def _cost(run: ComparedRun, axis: Axis) -> float:
    if axis in _JOURNAL_KEYS:
        return float(run.measured[-1][_JOURNAL_KEYS[axis]])
    return float(run.costs.parameters if axis == "params" else run.costs.kv_bytes)


def pareto(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Names of those of (name, cost, loss) that no other beats in one and equals or beats in the other."""
    return [
        name
        for name, cost, loss in points
        if not any(
            other_cost <= cost and other_loss <= loss and (other_cost, other_loss) != (cost, loss)
            for _, other_cost, other_loss in points
        )
    ]
