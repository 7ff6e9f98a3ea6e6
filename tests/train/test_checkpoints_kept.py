"""Which checkpoints a run leaves, and what a run can start from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import checkpoint_steps, measured, saved_tensors, train_here

from parallax.checkpoint.model import load_model
from parallax.errors import CheckpointError, TokenizerError

Settings = Callable[..., dict[str, Any]]


def best_step(run: Path) -> int:
    return int(json.loads((run / "checkpoints" / "best.json").read_text())["step"])


def test_the_newest_are_kept_and_so_is_the_best(settings: Settings, tmp_path: Path) -> None:
    worse_later = {"optim.lr": 2.0, "optim.warmup_steps": 12}
    train_here(settings({**worse_later, "train.save_every": 2, "train.eval_every": 1, "train.keep_last": 2}))
    val_losses = {record["step"]: record["val_loss"] for record in measured(tmp_path / "run")}
    best = min(val_losses, key=lambda step: val_losses[step])
    assert best < 8, "otherwise the best is among the newest, and this shows nothing"
    assert best_step(tmp_path / "run") == best
    assert checkpoint_steps(tmp_path / "run") == [best, 10, 12]
    assert load_model(tmp_path / "run" / "best").path.name == f"step-{best:08d}"
    assert load_model(tmp_path / "run").path.name == "step-00000012"


def test_an_improvement_is_saved_when_no_checkpoint_is_due(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.save_every": 0, "train.eval_every": 5, "train.keep_last": 5}))
    assert checkpoint_steps(tmp_path / "run") == [5, 10, 12]


def test_the_best_is_not_saved_apart_when_nobody_wants_it(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.save_every": 0, "train.eval_every": 5, "train.save_best": False}))
    assert checkpoint_steps(tmp_path / "run") == [12]
    assert not (tmp_path / "run" / "checkpoints" / "best.json").exists()


def test_a_best_that_a_kill_left_unmarked_is_marked_by_the_resumption(settings: Settings, tmp_path: Path) -> None:
    """As if killed between saving the last checkpoint and noting that it is the best."""
    note = tmp_path / "run" / "checkpoints" / "best.json"
    train_here(settings())
    expected = note.read_text()
    assert best_step(tmp_path / "run") == 12
    note.unlink()
    train_here(settings())
    assert note.read_text() == expected


def test_a_checkpoint_that_is_not_the_best_is_not_marked_by_the_resumption(
    settings: Settings, tmp_path: Path
) -> None:
    run = settings({"optim.lr": 2.0, "optim.warmup_steps": 12, "train.eval_every": 1})
    train_here(run)
    (tmp_path / "run" / "checkpoints" / "best.json").unlink()
    train_here(run)
    assert not (tmp_path / "run" / "checkpoints" / "best.json").exists()


def test_a_damaged_checkpoint_is_passed_over_with_a_word_and_its_steps_are_made_again(
    settings: Settings, tmp_path: Path
) -> None:
    train_here(settings())
    before = measured(tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step-00000012" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, shown = train_here(settings())
    assert code == 0
    assert "passing over the damaged checkpoint" in shown
    assert "after step 6" in shown
    assert measured(tmp_path / "run") == before
    assert load_model(tmp_path / "run" / "checkpoints" / "step-00000012").state["progress"]["step"] == 12


def test_a_run_none_of_whose_checkpoints_is_whole_is_not_started_anew(settings: Settings, tmp_path: Path) -> None:
    train_here(settings())
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    lines = (tmp_path / "run" / "journal.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="no checkpoint that is whole; nothing was overwritten"):
        train_here(settings())
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == lines
    assert checkpoint_steps(tmp_path / "run") == [6, 12]


def test_a_run_can_start_from_the_weights_of_another_with_a_fresh_optimizer(
    settings: Settings, tmp_path: Path
) -> None:
    train_here(settings(run="first"))
    later = {"train.init_from": str(tmp_path / "first"), "train.max_steps": 1, "optim.warmup_steps": 4}
    train_here(settings(later, run="second"))
    [record] = measured(tmp_path / "second")
    assert record["step"] == 1
    assert record["lr"] == pytest.approx(0.01 / 4)
    assert record["loss"] < 4.5, "a new model would be at ln 257 = 5.5"
    tensors = saved_tensors(tmp_path / "second", 1)
    assert {float(value) for name, value in tensors.items() if name.startswith("optimizer step")} == {1.0}


def test_the_weights_at_the_start_are_exactly_those_of_the_other_run(settings: Settings, tmp_path: Path) -> None:
    train_here(settings(run="first"))
    frozen = {"train.init_from": str(tmp_path / "first"), "train.max_steps": 1, "optim.lr": 1e-30}
    train_here(settings({**frozen, "optim.weight_decay": 0.0, "optim.min_lr": 0.0}, run="second"))
    first, second = saved_tensors(tmp_path / "first", 12), saved_tensors(tmp_path / "second", 1)
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("model"))


def test_once_it_has_a_checkpoint_a_run_does_not_look_at_what_it_started_from(
    settings: Settings, tmp_path: Path
) -> None:
    train_here(settings(run="first"))
    second = {"train.init_from": str(tmp_path / "first"), "train.max_steps": 2}
    train_here(settings(second, run="second"))
    (tmp_path / "first").rename(tmp_path / "gone")
    assert train_here(settings({**second, "train.max_steps": 3}, run="second"))[0] == 0
    assert [record["step"] for record in measured(tmp_path / "second")] == [1, 2, 3]


def test_weights_of_another_architecture_are_refused(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.max_steps": 1}, run="first"))
    other = {"train.init_from": str(tmp_path / "first"), "model.num_tracks": 1}
    with pytest.raises(CheckpointError, match="another architecture"):
        train_here(settings(other, run="second"))


def test_weights_made_with_another_tokenizer_are_refused(settings: Settings, tmp_path: Path) -> None:
    from parallax.data.prepare import prepare

    train_here(settings({"train.max_steps": 1}, run="first"))
    (tmp_path / "text.txt").write_text("abcdefgh" * 500)
    prepare(tmp_path / "text.txt", tmp_path / "chars", tokenizer="char")
    other = {"train.init_from": str(tmp_path / "first"), "data.path": str(tmp_path / "chars")}
    with pytest.raises(TokenizerError, match="another tokenizer"):
        train_here(settings(other, run="second"))
