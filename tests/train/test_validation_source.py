"""What the validation loss is measured on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import train_here

from parallax.data.prepare import prepare
from parallax.errors import DataError
from parallax.metrics.journal import read_journal

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other.txt").write_text("Quite another text, said over and over.\n" * 300)
    prepare(tmp_path / "other.txt", tmp_path / "other", val_fraction=0.5)
    return tmp_path / "other"


def val_losses(run: Path) -> list[float]:
    return [record["val_loss"] for record in read_journal(run / "journal.jsonl") if "val_loss" in record]


def test_a_validation_folder_takes_the_place_of_the_corpus_own_split(
    settings: Settings, tmp_path: Path, other: Path
) -> None:
    train_here(settings(run="own"))
    train_here(settings({"data.val_path": str(other)}, run="told"))
    assert val_losses(tmp_path / "own") != val_losses(tmp_path / "told")
    assert len(val_losses(tmp_path / "told")) == 2


def test_a_validation_folder_without_a_validation_split_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "bare.txt").write_text("Some text that is all for training.\n" * 100)
    prepare(tmp_path / "bare.txt", tmp_path / "bare", val_fraction=0)
    with pytest.raises(DataError, match="bare has no validation split; prepare it with --val-fraction above 0"):
        train_here(settings({"data.val_path": str(tmp_path / "bare")}))


def test_the_best_loss_on_one_text_is_not_compared_with_that_on_another(
    settings: Settings, tmp_path: Path, other: Path
) -> None:
    train_here(settings({"train.max_steps": 12}))
    on_own = min(val_losses(tmp_path / "run"))
    train_here(settings({"train.max_steps": 18, "data.val_path": str(other)}))
    on_other = val_losses(tmp_path / "run")[-1]
    assert on_other > on_own, "the test needs a text on which the model is worse"
    best = json.loads((tmp_path / "run" / "checkpoints" / "best.json").read_text())
    assert (best["step"], best["val_loss"]) == (18, on_other)
