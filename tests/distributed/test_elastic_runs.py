"""One run over changing ranks, started with torchrun, beside one that a single process made in one go."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallax.data.prepare import prepare
from parallax.metrics.journal import read_journal

_STEPS_EACH = 3
_CONFIG: dict[str, Any] = {
    "seed": 3,
    "model": {
        "num_layers": 1,
        "num_heads": 2,
        "hidden_size": 32,
        "vocab_size": 257,
        "max_seq_len": 32,
        "dropout": 0.1,
    },
    "train": {"global_batch": 8, "micro_batch": 2, "log_every": 1, "eval_every": 3, "save_every": 3},
    "optim": {"lr": 1e-2, "schedule": "constant", "warmup_steps": 0},
    "tracking": {"mlflow": False, "tensorboard": False},
    "sample": {"every": 3, "max_new_tokens": 8, "temperature": 0.0},
}
_CONFIG["train"] |= {"precision": "fp32", "eval_samples": 5}
_MEASURED = ("loss", "val_loss", "val_accuracy", "grad_norm", "param_norm", "accuracy", "sample", "tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    text = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(400))
    (folder / "prose.txt").write_text(text)
    prepare(folder / "prose.txt", folder / "corpus")
    (folder / "run.yaml").write_text(yaml.safe_dump(_CONFIG | {"data": {"path": str(folder / "corpus")}}))
    return folder


def train(folder: Path, run: str, ranks: int, max_steps: int, *settings: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "localhost:0"]
    program = ["-m", "parallax.train", str(folder / "run.yaml"), f"run.dir={folder / run}"]
    return subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), *program, f"train.max_steps={max_steps}", *settings],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )


def figures(run: Path) -> list[dict[str, Any]]:
    return [
        {key: record[key] for key in _MEASURED if key in record} for record in read_journal(run / "journal.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_over_changing_ranks_is_the_run_of_one_process(folder: Path) -> None:
    layouts: list[tuple[int, tuple[str, ...]]] = [
        (4, ("parallel.track=2", "parallel.dp_replicate=2")),
        (2, ("parallel.dp_shard=2",)),
        (1, ()),
        (4, ("parallel.track=2", "parallel.dp_shard=2", "parallel.order=track_across")),
        (2, ("parallel.track=2", "parallel.shared=copy_reduce", "train.micro_batch=4")),
    ]
    for number, (ranks, settings) in enumerate(layouts, start=1):
        done = train(folder, "changing", ranks, number * _STEPS_EACH, *settings)
        assert done.returncode == 0, done.stdout
    done = train(folder, "alone", 1, len(layouts) * _STEPS_EACH)
    assert done.returncode == 0, done.stdout
    changing, alone = figures(folder / "changing"), figures(folder / "alone")
    assert len(changing) == len(alone) == len(layouts) * _STEPS_EACH
    for ours, theirs in zip(changing, alone, strict=True):
        assert (
            ours == pytest.approx(theirs, rel=2e-4) if "sample" not in ours else ours["sample"] == theirs["sample"]
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_that_cannot_be_arranged_are_told_so_once_and_nothing_is_written(folder: Path) -> None:
    done = train(folder, "refused", 2, 3, "parallel.track=1", "parallel.dp_shard=3")
    assert done.returncode != 0
    assert "dp_shard=3" in done.stdout
    assert not (folder / "refused").exists()
