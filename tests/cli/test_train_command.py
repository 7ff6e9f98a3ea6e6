"""`parallax train`, `parallax init` and `parallax curve`."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_world import Parallax

from parallax.metrics.journal import read_journal


def steps(run: Path) -> list[int]:
    return [record["step"] for record in read_journal(run / "journal.jsonl")]


def test_plain_lines_tell_what_runs_how_it_goes_and_what_comes_next(parallax: Parallax, tmp_path: Path) -> None:
    answer = parallax("train", "tiny.yaml", f"run.dir={tmp_path}/new", "train.max_steps=10")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    heads = [line.split()[0] for line in lines]
    assert heads[:4] == ["run", "model", "data", "batch"]
    assert heads.count("step") == 2
    assert any(line.startswith("step     10/10  loss ") and " val " in line and " tok/s" in line for line in lines)
    assert any(line.startswith("done     10 steps, 1,280 tokens in ") for line in lines)
    assert f'next     parallax generate {tmp_path}/new --prompt "The "' in lines
    assert "\x1b" not in answer.out


def test_the_same_command_again_has_nothing_to_do_and_a_longer_one_goes_on(
    parallax: Parallax, tmp_path: Path
) -> None:
    asked = ["train", "tiny.yaml", f"run.dir={tmp_path}/new", "train.log_every=1"]
    assert parallax(*asked, "train.max_steps=3").code == 0
    again = parallax(*asked, "train.max_steps=3")
    assert again.code == 0
    assert "complete at step 3; for more, raise train.max_steps" in again.out
    assert parallax(*asked, "train.max_steps=5").code == 0
    assert steps(tmp_path / "new") == [1, 2, 3, 4, 5]


def test_a_run_is_named_after_its_file_and_lives_in_runs_unless_told_otherwise(
    parallax: Parallax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Path
) -> None:
    (tmp_path / "short.yaml").write_text((world / "tiny.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert parallax("train", "short.yaml", f"data.path={world}/corpus", "train.max_steps=1").code == 0
    assert steps(tmp_path / "runs" / "short") == [1]


@pytest.mark.slow
def test_the_built_in_corpus_is_prepared_once_and_then_found(
    parallax: Parallax, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("PARALLAX_CACHE", str(cache))
    asked = ["train", "tiny.yaml", "data.path=builtin:python-manual", "train.max_steps=1", "train.eval_every=0"]
    assert parallax(*asked, f"run.dir={tmp_path}/one", "train.eval_samples=2").code == 0
    [corpus] = cache.iterdir()
    made = (corpus / "meta.json").stat().st_mtime_ns
    assert parallax(*asked, f"run.dir={tmp_path}/two", "train.eval_samples=2").code == 0
    assert list(cache.iterdir()) == [corpus]
    assert (corpus / "meta.json").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_run_measures_its_checkpoint_on_the_corpus_it_was_trained_on(parallax: Parallax, tmp_path: Path) -> None:
    asked = [
        "data.path=builtin:python-manual",
        "train.max_steps=1",
        "train.eval_samples=2",
        "model.max_seq_len=64",
    ]
    assert parallax("train", "tiny.yaml", f"run.dir={tmp_path}/new", *asked).code == 0
    found = parallax("eval", f"{tmp_path}/new", "--batch-size", 512, "--json").json
    assert "python-manual" in found["data"]
    assert found["tokens"] > 10_000


def test_init_writes_the_weights_that_a_run_would_start_from(parallax: Parallax, tmp_path: Path) -> None:
    answer = parallax("init", "tiny.yaml", "--output", tmp_path / "model", "--json")
    assert (answer.code, answer.err) == (0, "")
    report = answer.json
    weights = load_file(tmp_path / "model" / "step-00000000" / "model.safetensors")
    sizes = {name: weight.numel() for name, weight in weights.items()}
    assert report["checkpoint"] == str(tmp_path / "model" / "step-00000000")
    assert report["parameters"] == sum(sizes.values())
    assert report["parameters_without_embeddings"] == report["parameters"] - 2 * 257 * 32
    assert report["parameters_per_track"] == sum(n for name, n in sizes.items() if name.startswith("tracks.0."))
    assert report["memory_bytes"] > 16 * report["parameters"], "weights, gradients and two moments in fp32"

    started = [f"train.init_from={tmp_path}/model", "train.max_steps=5", "train.log_every=1"]
    parallax("train", "tiny.yaml", f"run.dir={tmp_path}/given", *started)
    parallax("train", "tiny.yaml", f"run.dir={tmp_path}/drawn", *started[1:])
    given, drawn = (read_journal(tmp_path / run / "journal.jsonl") for run in ("given", "drawn"))
    assert [record["loss"] for record in given] == [record["loss"] for record in drawn]


def test_init_tells_a_person_the_same_and_writes_beside_the_run_unless_told_otherwise(
    parallax: Parallax, tmp_path: Path
) -> None:
    answer = parallax("init", "tiny.yaml", f"run.dir={tmp_path}/new")
    assert [line.split()[0] for line in answer.out.splitlines()] == [
        "parameters",
        "total",
        "without",
        "per",
        "training",
        "written",
    ]
    assert answer.out.splitlines()[-1] == f"written to {tmp_path}/new-init/step-00000000"
    assert not (tmp_path / "new").exists()
    assert parallax("generate", f"{tmp_path}/new-init", "--max-new-tokens", 3).code == 0


def test_the_curve_is_drawn_on_the_terminal_and_into_a_picture(
    parallax: Parallax, tmp_path: Path, world: Path
) -> None:
    answer = parallax("curve", "run", "--png", tmp_path / "own.png")
    assert (answer.code, answer.err) == (0, "")
    assert (tmp_path / "own.png").read_bytes().startswith(b"\x89PNG")
    assert "loss in nats per token" in answer.out
    assert all(len(line) <= 80 for line in answer.out.splitlines()[:-1])
    assert answer.out.splitlines()[-1] == f"picture: {tmp_path}/own.png"
    assert parallax("curve", "run").out.splitlines()[-1] == "picture: run/curve.png"


def test_what_the_run_left_is_readable_by_other_programs(world: Path) -> None:
    for line in (world / "run" / "journal.jsonl").read_text().splitlines():
        assert json.loads(line)["step"] % 5 == 0
    assert (world / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")
