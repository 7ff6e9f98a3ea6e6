"""`train.goal`: memorising one batch, and failing where that cannot be done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import measured, train_here

import parallax
from parallax.config.load import load_config
from parallax.errors import GoalError, run_and_explain
from parallax.train.command import train

Settings = Callable[..., dict[str, Any]]
CONFIGS = Path(parallax.__file__).parents[1] / "configs"
EASY = {
    "data.limit_samples": 4,
    "train.max_steps": 40,
    "train.eval_every": 0,
    "train.goal.max_loss": 5.0,
    "train.goal.min_accuracy": 0.0,
}
IMPOSSIBLE = {**EASY, "train.max_steps": 3, "train.goal.max_loss": 1e-9}


@pytest.mark.slow
def test_the_overfitting_configuration_memorises_its_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("PARALLAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    quiet = ["tracking.mlflow=false", "tracking.tensorboard=false", "runtime.num_threads=1"]
    config = load_config(CONFIGS / "overfit.yaml", [f"run.dir={tmp_path / 'run'}", *quiet])
    assert config.train.goal is not None
    assert (config.train.goal.max_loss, config.train.goal.min_accuracy) == (0.05, 0.99)
    assert train(config) == 0
    last = measured(tmp_path / "run")[-1]
    assert last["loss"] < 0.05
    assert last["accuracy"] >= 0.99
    assert last["step"] < 400


def test_a_run_ends_at_the_first_logged_step_that_reaches_its_goal(settings: Settings, tmp_path: Path) -> None:
    assert train_here(settings(EASY))[0] == 0
    losses = [record["loss"] for record in measured(tmp_path / "run")]
    assert losses[-1] < 5.0
    assert all(loss >= 5.0 for loss in losses[:-1])
    assert 1 < len(losses) < 40


def test_the_accuracy_must_be_reached_as_well(settings: Settings, tmp_path: Path) -> None:
    both = {**EASY, "train.goal.max_loss": 5.5, "train.goal.min_accuracy": 0.3}
    assert train_here(settings(both))[0] == 0
    records = measured(tmp_path / "run")
    assert records[-1]["accuracy"] >= 0.3
    assert any(record["loss"] < 5.5 for record in records[:-1])


def test_a_run_whose_goal_was_reached_is_complete(settings: Settings, tmp_path: Path) -> None:
    train_here(settings(EASY))
    before = measured(tmp_path / "run")
    code, shown = train_here(settings(EASY))
    assert code == 0
    assert f"complete at step {len(before)}, where train.goal was reached" in shown
    assert measured(tmp_path / "run") == before


def test_a_goal_that_is_not_reached_is_a_failure_with_exit_code_1(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in ("at first", "and when the complete run is looked at again"):
        assert run_and_explain(lambda: train_here(settings(IMPOSSIBLE))[0]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}/run: 3 steps did not reach loss < 1e-09")
    assert len(measured(tmp_path / "run")) == 3


def test_a_goal_can_be_eased_and_more_steps_given_afterwards(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(GoalError):
        train_here(settings(IMPOSSIBLE))
    assert train_here(settings(EASY))[0] == 0
    assert measured(tmp_path / "run")[-1]["loss"] < 5.0
