"""Whole runs under torchrun whose engine, stage and layout change at every resume."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallax.data.prepare import prepare
from parallax.metrics.journal import read_journal

pytestmark = [pytest.mark.deepspeed, pytest.mark.timeout(900)]

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
    "train": {
        "global_batch": 8,
        "micro_batch": 2,
        "log_every": 1,
        "eval_every": 3,
        "save_every": 3,
        "precision": "fp32",
        "eval_samples": 5,
    },
    "optim": {"lr": 1e-2, "schedule": "constant", "warmup_steps": 0},
    "tracking": {"mlflow": False, "tensorboard": False},
    "sample": {"every": 3, "max_new_tokens": 8, "temperature": 0.0},
}
_MEASURED = ("loss", "val_loss", "val_accuracy", "grad_norm", "param_norm", "accuracy", "tokens")
_TIMING = {"time", "seconds", "tokens_per_second", "step_seconds", "mfu", "memory_bytes"}
ZERO = "parallel.engine=deepspeed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, operators: Path) -> Path:
    folder = tmp_path_factory.mktemp("deepspeed")
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


def must_train(folder: Path, run: str, ranks: int, max_steps: int, *settings: str) -> None:
    done = train(folder, run, ranks, max_steps, *settings)
    assert done.returncode == 0, done.stdout


def measured(run: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in record.items() if k not in _TIMING} for record in read_journal(run / "journal.jsonl")
    ]


def saved_state(run: Path, step: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((run / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())
    return state


def test_a_run_over_changing_engines_is_the_run_of_one_process(folder: Path) -> None:
    legs: list[tuple[int, tuple[str, ...]]] = [
        (4, (ZERO, "deepspeed.zero_stage=3", "parallel.track=2")),
        (2, ("parallel.dp_shard=2",)),
        (2, (ZERO, "deepspeed.zero_stage=1", "parallel.track=2", "parallel.shared=copy_reduce")),
        (2, (ZERO, "deepspeed.zero_stage=2", "train.micro_batch=1")),
        (1, (ZERO, "deepspeed.zero_stage=0")),
        (1, ()),
    ]
    for number, (ranks, settings) in enumerate(legs, start=1):
        must_train(folder, "changing", ranks, number * 3, *settings)
    must_train(folder, "alone", 1, len(legs) * 3)
    changing, alone = measured(folder / "changing"), measured(folder / "alone")
    assert len(changing) == len(alone) == len(legs) * 3
    for ours, theirs in zip(changing, alone, strict=True):
        for key in _MEASURED:
            if key in theirs:
                assert ours[key] == pytest.approx(theirs[key], rel=2e-4), (ours["step"], key)
        assert ours.get("sample") == theirs.get("sample")
    last = len(legs) * 3
    # The cursor and seed from which the samples of every step follow.
    assert saved_state(folder / "changing", last)["loader"] == saved_state(folder / "alone", last)["loader"]


def test_a_bf16_run_that_was_resumed_is_the_one_that_never_stopped(folder: Path) -> None:
    settings = (ZERO, "deepspeed.zero_stage=3", "train.precision=bf16")
    must_train(folder, "resumed", 2, 3, *settings)
    must_train(folder, "resumed", 2, 6, *settings)
    must_train(folder, "whole", 2, 6, *settings)
    assert measured(folder / "resumed") == measured(folder / "whole")


def test_what_deepspeed_cannot_do_is_refused_before_anything_is_written(folder: Path) -> None:
    done = train(folder, "refused", 1, 3, ZERO, "parallel.overlap=true")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("error: parallel.engine=deepspeed: parallel.overlap=true")
    assert not (folder / "refused").exists()


def test_settings_that_deepspeed_does_not_accept_are_one_line(folder: Path) -> None:
    (folder / "odd.json").write_text('{"zero_optimization": {"overlap_comm": "perhaps"}}')
    done = train(folder, "odd", 1, 3, ZERO, f"deepspeed.settings={folder / 'odd.json'}")
    assert done.returncode == 2
    last = done.stdout.splitlines()[-1]
    assert last.startswith("error: DeepSpeed refuses its settings:")
    assert "overlap_comm" in last


def test_without_deepspeed_a_run_ends_in_one_line_that_names_the_command(folder: Path) -> None:
    hidden = folder / "hidden" / "deepspeed"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'deepspeed'\")\n")
    settings = [f"run.dir={folder / 'none'}", ZERO, "train.max_steps=1"]
    done = subprocess.run(
        [sys.executable, "-m", "parallax.train", str(folder / "run.yaml"), *settings],
        env=os.environ | {"PYTHONPATH": f"{hidden.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "pip install 'deepspeed==" in done.stdout.splitlines()[-1]


@pytest.mark.product  # compiles an operator for minutes
@pytest.mark.timeout(1500)
def test_a_stale_lock_beside_the_real_operator_stops_no_run(
    folder: Path, host_adam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = folder / "operators" / host_adam.name
    shutil.copytree(host_adam, copied)
    (copied / "lock").touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(copied.parent))
    done = train(folder, "host", 2, 1, ZERO, "deepspeed.offload_optimizer=true")
    assert done.returncode == 0, done.stdout
    assert f"removed {copied / 'lock'}" in done.stdout
    assert "ZeRO 2; on the host: optimizer" in done.stdout
    assert "compiling" not in done.stdout
