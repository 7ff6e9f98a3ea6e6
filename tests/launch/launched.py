"""Tiny runs under every launcher: how one is started, and what two of them are compared by."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallax.data.prepare import prepare
from parallax.metrics.journal import read_journal

CHECKOUT = Path(__file__).parents[2]
_CONFIG: dict[str, Any] = {
    "seed": 3,
    "model": {"num_layers": 1, "num_heads": 2, "hidden_size": 32, "vocab_size": 257, "max_seq_len": 32},
    "train": {
        "max_steps": 20,
        "global_batch": 8,
        "micro_batch": 2,
        "log_every": 1,
        "eval_every": 0,
        "eval_samples": 4,
        "save_every": 0,
        "precision": "fp32",
    },
    "optim": {"lr": 3e-3, "schedule": "constant", "warmup_steps": 0, "grad_clip": 0.9},
    "tracking": {"mlflow": False, "tensorboard": False},
    "runtime": {"device": "cpu"},
}


@dataclass(frozen=True)
class LaunchedRun:
    """A way to start the tiny run; `tests/launch/test_launched_runs.py` has a row for each."""

    name: str
    arguments: tuple[str, ...]
    """Of `python -m launch CONFIG`."""
    tolerance: float = 1e-5
    """Largest relative distance of a loss from that of one process."""
    needs: str | None = None
    """A package without which it is skipped."""
    environment: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    """What stands in its output."""


def write_tiny_run(folder: Path) -> Path:
    """Prepares a corpus and writes the configuration file of a run over it; the path of the file."""
    text = "".join(f"Line {n} of the {n % 7}th chapter says something about {n * n}.\n" for n in range(400))
    (folder / "prose.txt").write_text(text)
    prepare(folder / "prose.txt", folder / "corpus")
    config = folder / "tiny_run.yaml"
    config.write_text(yaml.safe_dump(_CONFIG | {"data": {"path": str(folder / "corpus")}}))
    return config


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of processes that share two processors with others."""
    kept = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    scripts = str(Path(sys.executable).parent)
    path = {"PATH": f"{scripts}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    return kept | path | {"OMP_NUM_THREADS": "1"} | dict(more or {})


def execute(
    command: Sequence[str], more: Mapping[str, str] | None = None, *, within_seconds: float = 240.0
) -> subprocess.CompletedProcess[str]:
    """Runs a command from the checkout to its end; its output has stderr in it."""
    with subprocess.Popen(
        list(command),
        env=environment(more),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=within_seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # a launcher ends what it started
            output, _ = process.communicate(timeout=120)
            raise AssertionError(f"{command} had not ended after {within_seconds} s:\n{output}") from None
    return subprocess.CompletedProcess(list(command), process.returncode, output, "")


def launch(*arguments: str, more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m launch` with arguments."""
    return execute([sys.executable, "-m", "launch", *arguments], more)


def assert_same_curve(
    ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]], tolerance: float = 1e-5
) -> None:
    """Losses to a relative tolerance, gradient norms to ten times that."""
    assert [loss for loss, _ in ours] == pytest.approx([loss for loss, _ in theirs], rel=tolerance)
    assert [norm for _, norm in ours] == pytest.approx([norm for _, norm in theirs], rel=10 * tolerance)


def curve(run: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    return [(record["loss"], record["grad_norm"]) for record in read_journal(run / "journal.jsonl")]
