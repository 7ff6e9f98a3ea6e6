"""A tracker that missed a run gets it when the finished run is started again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import train_here

Settings = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_a_store_that_was_away_during_the_run_has_all_of_it_after_the_same_command(
    settings: Settings, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    train_here(settings())
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    again = settings({"tracking.mlflow": True, "tracking.uri": uri, "tracking.experiment": "late"})
    code, shown = train_here(again)
    assert code == 0
    assert "complete at step 12" in shown
    client = MlflowClient(tracking_uri=uri)
    [run] = client.search_runs([client.get_experiment_by_name("late").experiment_id])
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 13))
