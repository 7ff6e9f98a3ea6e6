"""How many steps a run has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import measured, tiny_config, train_here

from parallax.train.session import count_steps


@pytest.mark.parametrize(
    ("epochs", "samples", "batch", "steps"),
    [(1.0, 100, 10, 10), (1.0, 101, 10, 11), (2.5, 100, 10, 25), (0.01, 100, 10, 1), (3.0, 7, 32, 1)],
)
def test_epochs_are_rounded_up_to_whole_steps(epochs: float, samples: int, batch: int, steps: int) -> None:
    config = tiny_config(
        {
            "data.path": "x",
            "train.max_steps": None,
            "train.max_epochs": epochs,
            "train.global_batch": batch,
        }
    )
    assert count_steps(config, samples) == steps


def test_steps_that_are_given_need_no_counting() -> None:
    assert count_steps(tiny_config({"data.path": "x", "train.max_steps": 7}), 1000) == 7


def test_a_run_of_one_epoch_ends_where_every_window_was_seen(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run = settings({"train.max_steps": None, "train.max_epochs": 1.0, "data.limit_samples": 10})
    assert train_here(run)[0] == 0
    records = measured(tmp_path / "run")
    assert [record["step"] for record in records] == [1, 2, 3]
    assert [record["epoch"] for record in records] == pytest.approx([0.4, 0.8, 1.2])
