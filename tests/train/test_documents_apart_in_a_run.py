"""`data.document_mask` in a run: training, validation and `parallax eval` leave the same tokens out of sight."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import assert_same_run, measured, train_here

from parallax.cli.main import main
from parallax.data.prepare import prepare
from parallax.errors import RunError

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def short_documents(tmp_path: Path) -> dict[str, Any]:
    """Settings that name a corpus of documents shorter than a window."""
    lines = [f'{{"text": "note {n} on {n * n % 17}"}}\n' for n in range(1200)]
    (tmp_path / "notes.jsonl").write_text("".join(lines))
    prepare(tmp_path / "notes.jsonl", tmp_path / "notes", val_fraction=0.1)
    return {"data.path": str(tmp_path / "notes"), "train.eval_samples": None}


def test_the_mask_changes_training_and_validation_from_the_first_step_on(
    settings: Settings, tmp_path: Path, short_documents: dict[str, Any]
) -> None:
    for name, mask in (("apart", True), ("packed", False)):
        changes = {**short_documents, "data.document_mask": mask, "train.max_steps": 1}
        _, shown = train_here(settings(changes, run=name))
        assert ("; documents apart" in shown) == mask
    apart, packed = measured(tmp_path / "apart")[0], measured(tmp_path / "packed")[0]
    assert apart["tokens"] == packed["tokens"]
    assert apart["loss"] != packed["loss"]
    assert apart["val_loss"] != packed["val_loss"]


def test_eval_measures_a_run_as_the_run_did(
    settings: Settings, tmp_path: Path, short_documents: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(settings({**short_documents, "data.document_mask": True}))
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["eval", str(tmp_path / "run"), "--json", "--device", "cpu"])
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == pytest.approx(measured(tmp_path / "run")[-1]["val_loss"], rel=1e-6)


def test_a_masked_run_continues_bit_for_bit(
    settings: Settings, tmp_path: Path, short_documents: dict[str, Any]
) -> None:
    masked = {**short_documents, "data.document_mask": True, "optim.schedule": "constant", "model.dropout": 0.1}
    train_here(settings(masked, run="whole"))
    for steps in (6, 12):
        train_here(settings({**masked, "train.max_steps": steps}))
    assert_same_run(tmp_path / "run", tmp_path / "whole", step=12)


def test_the_mask_is_kept_for_a_runs_life(settings: Settings, short_documents: dict[str, Any]) -> None:
    train_here(settings({**short_documents, "train.max_steps": 1}))
    with pytest.raises(RunError, match=r"data\.document_mask=False, not True"):
        train_here(settings({**short_documents, "train.max_steps": 2, "data.document_mask": True}))
