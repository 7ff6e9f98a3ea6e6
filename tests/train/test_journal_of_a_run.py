"""What a run writes down of every step, and what its figures have to do with each other."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import measured, tiny_config, train_here

from parallax.data.corpus import Corpus
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.journal import read_journal

Settings = Callable[..., dict[str, Any]]
PROMISED = {"step", "tokens", "flops", "seconds", "loss", "lr", "grad_norm"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Twelve steps with validation at 6 and 12, samples at 5, 10 and 12, and a z-loss."""
    folder = tmp_path_factory.mktemp("journal") / "run"
    own = {"data.path": str(corpus), "run.dir": str(folder), "loss.z_loss": 0.01, "loss.label_smoothing": 0.1}
    assert train_here({**own, "sample.every": 5, "sample.prompt": "Line ", "sample.max_new_tokens": 8})[0] == 0
    return folder


def test_every_logged_line_has_what_others_rely_on(run: Path) -> None:
    records = read_journal(run / "journal.jsonl")
    assert [record["step"] for record in records] == list(range(1, 13))
    for record in records:
        assert record.keys() >= PROMISED
        assert all(isinstance(record[key], int) for key in ("step", "tokens", "flops"))
        assert all(math.isfinite(record[key]) for key in PROMISED)


def test_the_validation_loss_is_there_where_it_was_measured(run: Path) -> None:
    assert [record["step"] for record in measured(run) if "val_loss" in record] == [6, 12]


def test_tokens_and_operations_are_counted_from_the_start(run: Path) -> None:
    per_token = train_flops_per_token(tiny_config({"data.path": "x"}).model, 32)
    for record in measured(run):
        assert record["tokens"] == record["step"] * 4 * 32
        assert record["flops"] == record["tokens"] * per_token


def test_perplexity_is_the_exponential_of_the_loss(run: Path) -> None:
    for record in measured(run):
        assert record["perplexity"] == pytest.approx(math.exp(record["loss"]))
        if "val_loss" in record:
            assert record["val_perplexity"] == pytest.approx(math.exp(record["val_loss"]))


def test_bits_per_byte_come_from_the_validation_loss(run: Path, corpus: Path) -> None:
    split = Corpus.open(corpus).split("val")
    record = measured(run)[-1]
    expected = record["val_loss"] / math.log(2) / split.bytes_per_token
    assert record["val_bits_per_byte"] == pytest.approx(expected)


def test_the_objective_holds_smoothing_and_z_loss_and_the_loss_does_not(run: Path) -> None:
    first = measured(run)[0]
    assert first["loss"] == pytest.approx(math.log(257), rel=0.01), "the plain cross-entropy of a new model"
    assert first["z_loss"] == pytest.approx(math.log(257) ** 2, rel=0.01)
    assert first["objective"] == pytest.approx(first["loss"] + 0.01 * first["z_loss"], rel=0.005)


def test_the_model_learns(run: Path) -> None:
    records = measured(run)
    assert records[-1]["loss"] < records[0]["loss"] - 1
    assert records[-1]["val_loss"] < records[5]["val_loss"]
    assert records[-1]["accuracy"] > records[0]["accuracy"]


def test_training_time_and_speed_go_together(run: Path) -> None:
    records = read_journal(run / "journal.jsonl")
    for before, after in pairwise(records):
        took = after["seconds"] - before["seconds"]
        assert took > 0
        assert after["tokens_per_second"] == pytest.approx(128 / took, rel=0.01)
        assert after["step_seconds"] == pytest.approx(took, rel=0.01)
        assert after["mfu"] > 0
        assert after["memory_bytes"] > 1e6


def test_samples_continue_the_prompt_when_they_are_due(run: Path) -> None:
    samples = {record["step"]: record["sample"] for record in measured(run) if "sample" in record}
    assert list(samples) == [5, 10, 12]
    assert all(text.startswith("Line ") for text in samples.values())
    assert len(set(samples.values())) == 3


def test_the_same_run_elsewhere_writes_the_same_lines_and_the_same_samples(run: Path, tmp_path: Path) -> None:
    from parallax.config.load import load_config
    from parallax.train.command import train

    again = load_config(run / "config.yaml", [f"run.dir={tmp_path / 'again'}"])
    assert train(again) == 0
    assert measured(tmp_path / "again") == measured(run)


def test_measuring_and_sampling_do_not_change_the_training(settings: Settings, tmp_path: Path) -> None:
    noisy = {"model.dropout": 0.2, "train.max_steps": 6}
    busy = {**noisy, "sample.every": 1, "sample.max_new_tokens": 2, "train.eval_every": 1, "train.save_every": 1}
    train_here(settings({**noisy, "train.eval_every": 0}, run="quiet"))
    train_here(settings(busy, run="busy"))
    losses = {run: [r["loss"] for r in measured(tmp_path / run)] for run in ("quiet", "busy")}
    assert losses["quiet"] == losses["busy"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_micro_batches_change_the_losses_by_no_more_than_rounding(
    dropout: float, settings: Settings, tmp_path: Path
) -> None:
    for micro in (4, 2, 1):
        changes = {"train.max_steps": 4, "train.micro_batch": micro, "model.dropout": dropout}
        train_here(settings(changes, run=str(micro)))
    whole = measured(tmp_path / "4")
    for micro in ("2", "1"):
        for ours, theirs in zip(measured(tmp_path / micro), whole, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
            assert ours["tokens"] == theirs["tokens"]


def test_a_corpus_without_a_validation_split_is_trained_on_without_one(tmp_path: Path) -> None:
    from parallax.data.prepare import prepare

    (tmp_path / "text.txt").write_text("some words and others\n" * 300)
    prepare(tmp_path / "text.txt", tmp_path / "data", val_fraction=0.0)
    run = {"data.path": str(tmp_path / "data"), "run.dir": str(tmp_path / "run"), "train.max_steps": 3}
    code, shown = train_here({**run, "train.eval_every": 1})
    assert code == 0
    assert "no validation tokens" in shown
    assert not any("val_loss" in record for record in measured(tmp_path / "run"))


def test_a_warm_up_longer_than_the_run_is_warned_of(settings: Settings) -> None:
    _, shown = train_here(settings({"train.max_steps": 2, "optim.warmup_steps": 50}))
    assert "warning  50 warm-up steps: none of 2 has the full optim.lr" in shown
