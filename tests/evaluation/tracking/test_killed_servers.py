"""A run whose tracking server is killed while it goes on and before it ends: MLflow has every step of it once."""

from pathlib import Path

import pytest

from evaluation.tracking.run import prepare_text
from evaluation.tracking.store import Kind
from evaluation.tracking.trial import run_trial


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=pytest.mark.product), "postgresql"])
def test_no_step_is_missing_or_doubled(kind: Kind, servers_folder: Path, request: pytest.FixtureRequest) -> None:
    if kind == "postgresql":  # whose server `make mlflow` starts
        request.getfixturevalue("postgres")
    trial = run_trial(kind, servers_folder, prepare_text(servers_folder / "text"), print, outages=2)
    assert trial.before.missing > 20, "the last outage covered the run's end"
    assert trial.before.doubled == 0
    assert f"`parallax track sync {servers_folder}/trained/run` sends what is missing" in trial.said
    assert trial.after.steps == trial.before.steps > 60
    assert trial.after.samples > 3
    assert (trial.after.missing, trial.after.doubled, trial.after.foreign) == (0, 0, 0)
    assert trial.after.status == "KILLED"
