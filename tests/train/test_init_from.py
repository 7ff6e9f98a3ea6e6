"""Weights taken from another run must mean the same here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import train_here

from parallax.errors import CheckpointError

Settings = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("key", "value", "theirs"),
    [
        ("num_heads", 1, 2),
        ("rope_theta", 77.0, 10000.0),
        ("norm_eps", 1e-3, 1e-05),
        ("output_norm_eps", 1e-3, 1e-05),
    ],
)
def test_weights_that_fit_in_shape_but_were_fitted_to_other_settings_are_refused(
    settings: Settings, tmp_path: Path, key: str, value: float, theirs: float
) -> None:
    first = {"train.max_steps": 1, "model.num_kv_heads": 1, "model.hidden_size": 32}
    if key == "num_heads":
        first |= {"model.num_kv_heads": 2}
    train_here(settings(first, run="first"))
    second = {**first, f"model.{key}": value, "train.init_from": str(tmp_path / "first")}
    if key == "num_heads":
        # (H + 2 G) E is the same for 2 heads of 16 with 2 key heads and for 1 head of 32 with 1.
        second |= {"model.num_kv_heads": 1}
    with pytest.raises(CheckpointError, match=rf"model\.{key}={theirs}, this run has {value}"):
        train_here(settings(second, run="second"))


def test_another_number_of_passes_may_start_from_the_same_weights(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.max_steps": 1}, run="first"))
    second = {"train.max_steps": 1, "model.num_loops": 1, "train.init_from": str(tmp_path / "first")}
    assert train_here(settings(second, run="second"))[0] == 0
