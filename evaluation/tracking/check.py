import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from parallax.errors import RunError
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.mlflow_run import RUN_FILE, prepare_mlflow
from parallax.metrics.sinks.protocol import measurements
from parallax.metrics.system_files import SYSTEM_FOLDER, SystemFiles


class Comparison(NamedTuple):
    """A run's journal, and what its nodes sampled, beside MLflow's history of them."""

    steps: int
    """Lines in the journal."""
    samples: int
    """Lines of the nodes."""
    values: int
    """Numbers in both."""
    missing: int
    """Lines of which MLflow lacks a number, or has another."""
    doubled: int
    """Lines of which MLflow has a number more than once."""
    foreign: int
    """Numbers that MLflow has and the run folder has not."""
    status: str
    """How the run ended, as MLflow says."""


def compare_with_mlflow(run: Path, uri: str) -> Comparison:
    """Every number of every line is looked for in the whole history that the server gives.

    Raises:
        mlflow.exceptions.MlflowException: the server does not answer.
    """
    prepare_mlflow()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run_id = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["run_id"]
    told = client.get_run(run_id)
    records = read_journal(run / "journal.jsonl")
    samples = SystemFiles(run, _refuse).new_records()
    expected = {
        (line["step"], key): (value, int(line["time"] * 1000))
        for line in (*records, *samples)
        for key, value in measurements(line)
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
        samples=len(samples),
        values=len(expected),
        missing=len({_line(place) for place in expected.keys() - right}),
        doubled=len({_line(place) for place, count in found.items() if count > 1}),
        foreign=len(found.keys() - expected.keys()),
        status=told.info.status,
    )


def _line(place: tuple[int, str]) -> tuple[int, str]:
    """The line that a number belongs to: one of the journal, or of a node."""
    step, key = place
    return step, key.rpartition("/")[0] if key.startswith(SYSTEM_FOLDER) else ""


def _refuse(warning: str) -> None:
    raise RunError(warning)
