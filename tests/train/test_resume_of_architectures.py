"""Every architecture goes on where it was left, bit for bit, noise included, however its batch is cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same_run, measured, saved_tensors, train_here

from parallax.errors import CheckpointError
from parallax.model.registry import ARCHITECTURES

Settings = Callable[..., dict[str, Any]]
STEADY = {"model.num_layers": 2, "optim.schedule": "constant", "optim.warmup_steps": 0}
NOISY = {**STEADY, "model.architecture": "gpt2_drift_diffusion", "model.dropout": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_left_and_taken_up_again_is_one_done_in_one_go(
    architecture: str, settings: Settings, tmp_path: Path
) -> None:
    changes = {**STEADY, "model.architecture": architecture, "model.dropout": 0.1}
    assert train_here(settings({**changes, "train.max_steps": 6}))[0] == 0
    assert train_here(settings(changes))[0] == 0
    assert train_here(settings(changes, run="whole"))[0] == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole", step=12)


def test_diffusion_draws_the_same_however_a_batch_is_cut_and_whatever_is_recomputed(
    settings: Settings, tmp_path: Path
) -> None:
    assert train_here(settings(NOISY, run="whole"))[0] == 0
    cut = {**NOISY, "train.micro_batch": 1, "train.activation_checkpointing": True}
    assert train_here(settings({**NOISY, "train.max_steps": 6}))[0] == 0
    assert train_here(settings(cut))[0] == 0
    for ours, theirs in zip(measured(tmp_path / "run"), measured(tmp_path / "whole"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
    ours, theirs = saved_tensors(tmp_path / "run", 12), saved_tensors(tmp_path / "whole", 12)
    weights = [name for name in ours if name.startswith("model")]
    differences = [float((ours[name] - theirs[name]).abs().max()) for name in weights]
    assert max(differences) < 1e-3


def test_more_and_less_noise_are_other_losses(settings: Settings, tmp_path: Path) -> None:
    """What the tests above compare is there."""
    quiet = {**NOISY, "model.dropout": 0.0, "train.max_steps": 1, "train.eval_every": 0}
    runs = {"noisy": {}, "less": {"model.diffusion_std": 0.05}, "none": {"model.diffusion_std": 0.0}}
    for name, change in runs.items():
        assert train_here(settings({**quiet, **change}, run=name))[0] == 0
    losses = [measured(tmp_path / name)[0]["loss"] for name in runs]
    assert len(set(losses)) == 3
    assert torch.isfinite(torch.tensor(losses)).all()


def test_weights_do_not_go_on_with_other_fixed_frequencies(settings: Settings, tmp_path: Path) -> None:
    """No weight's shape shows them."""
    fixed = {"model.architecture": "gpt2_rotating_head", "model.frequencies": "GP", "train.max_steps": 1}
    assert train_here(settings(fixed))[0] == 0
    other = {**fixed, "model.frequency_spread": 0.5, "train.init_from": str(tmp_path / "run")}
    with pytest.raises(CheckpointError, match=r"model.frequency_spread=1.0, this run has 0.5"):
        train_here(settings(other, run="other"))
