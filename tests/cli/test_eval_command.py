"""`parallax eval`: how well a model predicts a split."""

import math
from pathlib import Path
from typing import Any

import pytest
from small_world import PROSE, Parallax

from parallax.data.corpus import Corpus
from parallax.metrics.journal import read_journal


@pytest.fixture
def report(parallax: Parallax) -> dict[str, Any]:
    answer = parallax("eval", "run", "--json")
    assert (answer.code, answer.err) == (0, "")
    return answer.json


def test_the_figures_agree_with_each_other(report: dict[str, Any], world: Path) -> None:
    split = Corpus.open(world / "corpus").split("val")
    assert report["tokens"] == split.num_tokens - 1, "every token but the first, once"
    assert report["perplexity"] == pytest.approx(math.exp(report["loss"]))
    assert report["bits_per_byte"] == pytest.approx(report["loss"] / math.log(2) / split.bytes_per_token)
    assert 0 < report["accuracy"] < 1
    assert (report["checkpoint"], report["data"]) == ("run/checkpoints/step-00000040", "corpus (val)")


def test_the_loss_is_the_one_the_run_measured_at_its_end(report: dict[str, Any], world: Path) -> None:
    assert report["loss"] == pytest.approx(read_journal(world / "run" / "journal.jsonl")[-1]["val_loss"], rel=1e-6)


def test_the_model_beats_the_unigram_baseline_beside_it(report: dict[str, Any]) -> None:
    unigram = report["unigram"]
    assert unigram["fitted_on"] == "the training split"
    assert 2.5 < unigram["loss"] < 4
    assert report["loss"] < unigram["loss"]
    assert report["accuracy"] > unigram["accuracy"]
    assert unigram["tokens"] == report["tokens"]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_but_rounding(
    batch_size: int, report: dict[str, Any], parallax: Parallax
) -> None:
    other = parallax("eval", "run", "--batch-size", batch_size, "--json").json
    assert other["loss"] == pytest.approx(report["loss"], rel=1e-5)
    assert other["tokens"] == report["tokens"]


def test_a_prepared_folder_can_be_named_and_its_training_split_be_measured(
    report: dict[str, Any], parallax: Parallax, world: Path
) -> None:
    assert parallax("eval", "run", "--data", "corpus", "--json").json == report
    train = parallax("eval", "run", "--data", "corpus", "--split", "train", "--json").json
    assert train["data"] == "corpus (train)"
    assert train["tokens"] == Corpus.open(world / "corpus").split("train").num_tokens - 1


def test_a_raw_file_is_measured_whole_with_the_tokenizer_of_the_model(parallax: Parallax, world: Path) -> None:
    found = parallax("eval", "run", "--data", "prose.txt", "--json").json
    assert found["tokens"] == len(PROSE.encode())
    assert found["unigram"]["fitted_on"] == "the measured text itself"
    assert found["bits_per_byte"] == pytest.approx(found["loss"] / math.log(2), rel=0.001)


def test_half_precision_comes_near(report: dict[str, Any], parallax: Parallax) -> None:
    half = parallax("eval", "run", "--dtype", "bf16", "--json").json
    assert half["loss"] == pytest.approx(report["loss"], rel=0.01)
    assert half["loss"] != report["loss"]


def test_an_earlier_checkpoint_is_worse(report: dict[str, Any], parallax: Parallax) -> None:
    earlier = parallax("eval", "run/checkpoints/step-00000020", "--json").json
    assert earlier["loss"] > report["loss"]


def test_a_person_gets_a_table(report: dict[str, Any], parallax: Parallax) -> None:
    lines = parallax("eval", "run").out.splitlines()
    assert lines[0] == f"corpus (val): {report['tokens']:,} tokens predicted"
    assert lines[1].split() == ["nats/token", "perplexity", "bits/byte", "accuracy"]
    assert lines[2].split()[:3] == ["this", "model", f"{report['loss']:.4f}"]
    assert lines[3].split()[:2] == ["unigram", f"{report['unigram']['loss']:.4f}"]
    assert all(len(line) <= 80 for line in lines)
