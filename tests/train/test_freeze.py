"""Parameters that keep their values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same_run, measured, saved_tensors, tiny_config, train_here

from parallax.errors import ConfigError, RunError
from parallax.model.registry import build_model
from parallax.train.freeze import trainable_names

Settings = Callable[..., dict[str, Any]]


def names_left(freeze: list[str], **model: Any) -> list[str]:
    config = tiny_config({"data.path": "x", **{f"model.{key}": value for key, value in model.items()}})
    return trainable_names(build_model(config.model), freeze)


def test_a_pattern_freezes_what_it_matches_and_nothing_else() -> None:
    everything = names_left([])
    left = names_left(["embedding.*", "tracks.0.*norm*"])
    assert set(everything) - set(left) == {
        "embedding.weight",
        "tracks.0.blocks.0.attention_norm.weight",
        "tracks.0.blocks.0.mlp_norm.weight",
    }


@pytest.mark.parametrize("pattern", ["embedding.*", "head.*"])
def test_a_tied_embedding_and_head_are_frozen_together(pattern: str) -> None:
    left = names_left([pattern], tie_embeddings=True)
    assert "embedding.weight" not in left
    assert "head.weight" not in left
    assert ("head.weight" in names_left([pattern])) == (pattern != "head.*")


@pytest.mark.parametrize(
    ("freeze", "complaint"),
    [
        (["embeddings.*"], r"'embeddings.\*' matches no parameter; near it: .*embedding.weight"),
        (["track.0.blocks.0.mlp.down.weight"], "near it: tracks.0.blocks.0.mlp.down.weight"),
        (["Head.*"], "near it: head.weight"),
        (["*"], "leaves no parameter to train"),
        (["tracks.*", "embedding.*", "head.*", "norm.*"], "leaves no parameter to train"),
    ],
)
def test_a_mistake_names_what_there_is(freeze: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        names_left(freeze)


def test_frozen_parameters_stay_as_they_are_without_optimizer_state(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"train.max_steps": 2}, run="first"))
    second = {"train.init_from": str(tmp_path / "first"), "train.freeze": ["embedding.*", "tracks.1.*"]}
    _, shown = train_here(settings(second, run="second"))
    assert "of the parameters: embedding.weight, tracks.1.blocks.0.attention_norm.weight, " in shown
    before, after = saved_tensors(tmp_path / "first", 2), saved_tensors(tmp_path / "second", 12)
    for name in (name for name in before if name.startswith("model ")):
        frozen = name.startswith(("model embedding.", "model tracks.1."))
        assert torch.equal(before[name], after[name]) == frozen, name
        kept = [key for key in after if key.startswith("optimizer ") and key.endswith(name.removeprefix("model "))]
        assert bool(kept) != frozen, name


def test_a_frozen_head_that_is_tied_is_said_to_be_frozen(settings: Settings) -> None:
    _, shown = train_here(
        settings({"model.tie_embeddings": True, "train.freeze": ["embedding.*"], "train.max_steps": 1})
    )
    assert "of the parameters: embedding.weight (also head.weight, tied)" in shown


def test_the_gradient_norm_is_that_of_the_parameters_that_train(settings: Settings, tmp_path: Path) -> None:
    all_of_it = settings({"train.max_steps": 1}, run="all")
    head_only = settings({"train.max_steps": 1, "train.freeze": ["tracks.*", "embedding.*", "norm.*"]}, run="head")
    rest_only = settings({"train.max_steps": 1, "train.freeze": ["head.*"]}, run="rest")
    for run in (all_of_it, head_only, rest_only):
        train_here(run)
    norm, head, rest = (measured(tmp_path / name)[0]["grad_norm"] for name in ("all", "head", "rest"))
    assert 0 < head < norm
    assert head**2 + rest**2 == pytest.approx(norm**2, rel=1e-5)


def test_a_run_with_frozen_parameters_continues_bit_for_bit(settings: Settings, tmp_path: Path) -> None:
    frozen = {"train.freeze": ["embedding.*"], "optim.schedule": "constant"}
    train_here(settings(frozen, run="whole"))
    for steps in (6, 12):
        train_here(settings({**frozen, "train.max_steps": steps}))
    assert_same_run(tmp_path / "run", tmp_path / "whole", step=12)


def test_what_is_frozen_does_not_change_in_a_runs_life(settings: Settings) -> None:
    train_here(settings({"train.freeze": ["embedding.*"], "train.max_steps": 2}))
    with pytest.raises(RunError, match=r"train\.freeze="):
        train_here(settings({"train.max_steps": 4}))
