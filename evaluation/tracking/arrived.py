from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parallax.metrics.journal import Record
from parallax.metrics.sinks.protocol import measurements


@dataclass(frozen=True)
class Arrived:
    """What of a run's measurements a store holds; a point is one measurement of one step."""

    points: int
    """In the run's files."""
    missing: int
    doubled: int
    """More often there than once, counted per extra one."""
    foreign: int
    """In the store and not in the files, or with another value."""

    @property
    def is_exact(self) -> bool:
        """Whether every point is there once, and nothing else is."""
        return not (self.missing or self.doubled or self.foreign)


def compare_points(records: Sequence[Record], histories: Mapping[str, Sequence[tuple[int, float]]]) -> Arrived:
    """Compares lines of a run's files with the (step, value) pairs that a store holds by name."""
    expected = Counter((key, record["step"], value) for record in records for key, value in measurements(record))
    found = Counter((key, step, value) for key, history in histories.items() for step, value in history)
    places = Counter((key, step) for key, step, _ in found.elements())
    return Arrived(
        points=expected.total(),
        missing=(expected - found).total(),
        doubled=sum(count - 1 for count in places.values()),
        foreign=len(set(found) - set(expected)),
    )


def histories_of(client: Any, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """Every measurement that MLflow holds of a run, by name.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: MLflow's.
    """
    names = client.get_run(run_id).data.metrics
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)] for name in names
    }
