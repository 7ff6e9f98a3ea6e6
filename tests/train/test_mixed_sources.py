"""Runs that read several corpora."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import assert_same_run, measured, train_here

from parallax.data.prepare import prepare
from parallax.errors import DataError, RunError, TokenizerError

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another corpus of bytes."""
    (tmp_path / "other.txt").write_text("Quite another text, said over and over.\n" * 300)
    prepare(tmp_path / "other.txt", tmp_path / "other", val_fraction=0.1)
    return tmp_path / "other"


def mixed(corpus: Path, other: Path, weights: tuple[float, float] = (0.75, 0.25)) -> dict[str, Any]:
    paths = zip((corpus, other), weights, strict=True)
    return {"data.path": None, "data.sources": [{"path": str(p), "weight": weight} for p, weight in paths]}


def test_every_source_is_shown_counted_and_measured(
    settings: Settings, tmp_path: Path, corpus: Path, other: Path
) -> None:
    code, shown = train_here(settings(mixed(corpus, other)))
    assert code == 0
    assert "data     2 sources (byte)" in shown
    assert "source    75.0% corpus: " in shown
    assert "source    25.0% other: " in shown
    assert "epoch    one pass over corpus" in shown
    records = measured(tmp_path / "run")
    for record in records:
        samples = record["step"] * 4
        assert abs(record["source_share/other"] - 0.25) * samples < 1
        assert record["source_share/corpus"] + record["source_share/other"] == pytest.approx(1)
        assert record["source_epochs/other"] > 0
    with_validation = [record for record in records if "val_loss" in record]
    assert [record["step"] for record in with_validation] == [6, 12]
    for record in with_validation:
        assert record["val_loss_on/other"] != record["val_loss"]
        assert f"val {record['val_loss']:.3f}  other {record['val_loss_on/other']:.3f}" in shown


def test_an_anchor_is_a_mixture_by_another_name(
    settings: Settings, tmp_path: Path, corpus: Path, other: Path
) -> None:
    anchor = {"data.anchor.path": str(other), "data.anchor.ratio": 0.25}
    assert train_here(settings(anchor, run="anchored"))[0] == 0
    assert train_here(settings(mixed(corpus, other), run="mixed"))[0] == 0
    assert_same_run(tmp_path / "anchored", tmp_path / "mixed", step=12)


def test_a_mixed_run_continues_bit_for_bit(settings: Settings, tmp_path: Path, corpus: Path, other: Path) -> None:
    both = mixed(corpus, other) | {"data.document_mask": True}
    train_here(settings({**both, "train.max_steps": 12, "optim.schedule": "constant"}, run="whole"))
    for steps in (6, 12):
        train_here(settings({**both, "train.max_steps": steps, "optim.schedule": "constant"}))
    assert_same_run(tmp_path / "run", tmp_path / "whole", step=12)


def test_a_run_is_not_continued_with_other_weights(settings: Settings, corpus: Path, other: Path) -> None:
    train_here(settings({**mixed(corpus, other), "train.max_steps": 6}))
    with pytest.raises(DataError, match=r"weights=\[3, 1\], this run has weights=\[1, 1\]"):
        train_here(settings({**mixed(corpus, other, (1, 1)), "train.max_steps": 8}))


def test_weights_in_the_same_proportion_and_a_moved_corpus_are_the_same_run(
    settings: Settings, tmp_path: Path, corpus: Path, other: Path
) -> None:
    train_here(settings({**mixed(corpus, other), "train.max_steps": 6}))
    moved = other.rename(tmp_path / "moved")
    code, shown = train_here(settings({**mixed(corpus, moved, (3, 1)), "train.max_steps": 8}))
    assert code == 0
    assert "changed  data.sources" in shown


def test_the_anchor_ratio_is_kept_for_a_runs_life(settings: Settings, other: Path) -> None:
    anchor = {"data.anchor.path": str(other), "train.max_steps": 2}
    train_here(settings({**anchor, "data.anchor.ratio": 0.25}))
    with pytest.raises(RunError, match=r"data.anchor.ratio=0\.25, not 0\.5"):
        train_here(settings({**anchor, "data.anchor.ratio": 0.5}))


def test_corpora_of_different_tokenizers_are_not_mixed(
    settings: Settings, tmp_path: Path, corpus: Path, other: Path
) -> None:
    prepare(tmp_path / "other.txt", tmp_path / "chars", tokenizer="char")
    with pytest.raises(TokenizerError, match=r"chars was made with another tokenizer \('char'.*prepare it with"):
        train_here(settings(mixed(corpus, tmp_path / "chars")))


def test_corpora_of_one_name_are_told_apart_and_one_without_validation_is_not_measured(
    settings: Settings, tmp_path: Path, corpus: Path, other: Path
) -> None:
    prepare(tmp_path / "other.txt", tmp_path / "more" / "corpus", val_fraction=0)
    train_here(settings({**mixed(corpus, tmp_path / "more" / "corpus"), "train.max_steps": 1}))
    [record] = measured(tmp_path / "run")
    assert (record["source_share/corpus"], record["source_share/corpus-2"]) == (0.75, 0.25)
    assert [key for key in record if key.startswith("val_loss")] == ["val_loss"]


def test_passes_are_counted_over_the_main_source(settings: Settings, tmp_path: Path, other: Path) -> None:
    anchor = {"data.anchor.path": str(other), "data.anchor.ratio": 0.5}
    lengths = {"train.max_steps": None, "train.max_epochs": 0.1, "train.eval_every": 0}
    train_here(settings(lengths, run="alone"))
    train_here(settings({**lengths, **anchor}, run="anchored"))
    alone, anchored = measured(tmp_path / "alone")[-1], measured(tmp_path / "anchored")[-1]
    assert anchored["step"] == pytest.approx(2 * alone["step"], abs=1)
    assert anchored["epoch"] == pytest.approx(alone["epoch"], abs=0.02)
