"""NaN and infinity: the run stops at that step, says so in one line, and no checkpoint is infected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same_run, checkpoint_steps, measured, saved_tensors, tiny_config, train_here

from parallax.errors import NonFiniteError, run_and_explain
from parallax.train.command import train
from parallax.train.schedule import learning_rate

Settings = Callable[..., dict[str, Any]]
EXPLODING = {"optim.lr": 1e30, "optim.warmup_steps": 0, "train.eval_every": 0, "train.save_every": 1}


def all_finite(run: Path) -> bool:
    return all(
        tensor.isfinite().all() for step in checkpoint_steps(run) for tensor in saved_tensors(run, step).values()
    )


def test_a_loss_that_is_not_finite_ends_the_run_with_one_line_that_names_the_step(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_and_explain(lambda: train(tiny_config(settings(EXPLODING))))
    assert code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: step 2: ")
    assert f"the last good checkpoint is {tmp_path}/run/checkpoints/step-00000001" in line
    assert [record["step"] for record in measured(tmp_path / "run")] == [1]
    assert checkpoint_steps(tmp_path / "run") == [1]
    assert all_finite(tmp_path / "run")


def test_weights_that_overflow_in_the_very_step_that_saves_are_not_saved(
    settings: Settings, tmp_path: Path
) -> None:
    """The loss and the gradient of that step were still finite: they come before the update."""
    with pytest.raises(NonFiniteError, match=r"^step 1: .*none was saved before"):
        train_here(settings({**EXPLODING, "optim.lr": 1e39}))
    assert checkpoint_steps(tmp_path / "run") == []


def test_a_validation_loss_that_is_not_finite_ends_the_run_and_is_never_the_best(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteError, match=r"^step 1: "):
        train_here(settings({**EXPLODING, "train.eval_every": 1}))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_sample_that_cannot_be_drawn_ends_the_run_and_names_the_step(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"^step 1: "):
        train_here(settings({**EXPLODING, "sample.every": 1}))


def test_the_checkpoint_from_before_is_one_to_go_on_from(settings: Settings, tmp_path: Path) -> None:
    steady = settings({"train.save_every": 3, "optim.schedule": "constant"})
    with pytest.MonkeyPatch.context() as patched:
        rate = "parallax.train.step.learning_rate"
        patched.setattr(rate, lambda step, total, optim: learning_rate(step, total, optim) if step < 8 else 1e30)
        with pytest.raises(NonFiniteError, match=r"^step 9: .*/step-00000006;"):
            train_here(steady)
    assert all_finite(tmp_path / "run")
    assert train_here(steady)[0] == 0
    train_here({**steady, "run.dir": str(tmp_path / "never-failed")})
    assert_same_run(tmp_path / "run", tmp_path / "never-failed", step=12)


def test_an_overflow_under_fp16_is_an_ordinary_event(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale begins so high that gradients overflow: steps are skipped until it fits, and training goes on."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(
        "torch.amp.GradScaler", lambda device, enabled: scaler(device, enabled=enabled, init_scale=2.0**30)
    )
    code, shown = train_here(settings({"train.precision": "fp16", "train.max_steps": 30}))
    assert code == 0
    records = measured(tmp_path / "run")
    assert records[0]["grad_norm"] is None, "JSON has no infinity"
    assert "norm inf" in shown
    assert records[-1]["grad_norm"] is not None
    assert records[-1]["loss"] < records[0]["loss"] - 0.5
