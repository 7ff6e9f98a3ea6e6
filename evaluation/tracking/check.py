import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.mlflow_run import RUN_FILE, prepare_mlflow
from parallax.metrics.sinks.protocol import measurements


class Comparison(NamedTuple):
    """A run's journal beside MLflow's history of it."""

    steps: int
    """Lines in the journal."""
    values: int
    """Numbers in the journal."""
    missing: int
    """Steps of which MLflow lacks a number, or has another."""
    doubled: int
    """Steps of which MLflow has a number more than once."""
    foreign: int
    """Numbers that MLflow has and the journal has not."""
    status: str
    """How the run ended, as MLflow says."""


def compare_with_mlflow(run: Path, uri: str) -> Comparison:
    """Every number of every journal line is looked for in the whole history that the server gives.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer.
    """
    prepare_mlflow()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run_id = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["run_id"]
    told = client.get_run(run_id)
    records = read_journal(run / "journal.jsonl")
    expected = {
        (r["step"], key): (value, int(r["time"] * 1000)) for r in records for key, value in measurements(r)
    }
    found: Counter[tuple[int, str]] = Counter()
    right = set()
    for key in told.data.metrics:
        for metric in client.get_metric_history(run_id, key):
            place = (metric.step, key)
            found[place] += 1
            if expected.get(place) == (metric.value, metric.timestamp):
                right.add(place)
    return Comparison(
        steps=len(records),
        values=len(expected),
        missing=len({step for step, _ in expected.keys() - right}),
        doubled=len({step for (step, _), count in found.items() if count > 1}),
        foreign=len(found.keys() - expected.keys()),
        status=told.info.status,
    )
