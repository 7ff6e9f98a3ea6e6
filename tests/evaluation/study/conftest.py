"""A study of models that train in seconds, and a stand-in for training that takes none."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallax.config.yaml_strict import format_yaml
from parallax.data.prepare import prepare

BASE = {
    "model": {
        "num_tracks": 2,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
        "vocab_size": 257,
        "max_seq_len": 16,
        "num_loops": 2,
    },
    "train": {
        "max_steps": 6,
        "global_batch": 2,
        "precision": "fp32",
        "log_every": 2,
        "eval_every": 0,
        "eval_samples": 4,
        "save_every": 2,
        "save_best": False,
    },
    "optim": {"lr": 1e-3, "warmup_steps": 2},
    "runtime": {"device": "cpu", "num_threads": 1},
    "tracking": {"mlflow": False, "tensorboard": False},
}

DESIGN: dict[str, Any] = {
    "title": "Small",
    "question": "Does it work?",
    "base": "base.yaml",
    "prepare": "parallax data prepare --input t.txt --output corpus",
    "seeds": [0, 1, 2, 3, 4],
    "tuning": {"rates": [1e-3, 3e-3], "seeds": [0]},
    "factors": {
        "reads": {"swap": {"model.use_swap": True}, "self": {"model.use_swap": False}},
        "passes": {"1": {"model.num_loops": 1}, "2": {"model.num_loops": 2}},
    },
    "reference": "swap-2",
    "baselines": {"single": {"match": "parameters", "overrides": {"model.num_loops": 1}}},
    "comparisons": [["swap-2", "self-2"], ["swap-2", "single"]],
    "power": {"smallest_effect": 0.1, "paired_sd": 0.05, "source": "assumed"},
}

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of a text, with a validation split."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "t.txt").write_text("".join(f"line {n} says {n * n}.\n" for n in range(400)))
    prepare(str(folder / "t.txt"), folder / "corpus", val_fraction=0.2, num_workers=1)
    return folder / "corpus"


@pytest.fixture
def write_study(tmp_path: Path, corpus: Path) -> Write:
    """Writes a study file, with some keys of the design or of its base changed."""

    def write(changes: dict[str, Any] | None = None, train: dict[str, Any] | None = None) -> Path:
        base = BASE | {"data": {"path": str(corpus)}, "train": BASE["train"] | (train or {})}
        (tmp_path / "base.yaml").write_text(format_yaml(base))
        (tmp_path / "small.yaml").write_text(format_yaml(DESIGN | (changes or {})))
        return tmp_path / "small.yaml"

    return write


@pytest.fixture
def stand_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of Python: writes what a run of that seed would, and a line for each start.

    Seed 6 finds its folder in use at its first start, seed 7 fails, seed 8 diverges, seed 9 takes for ever; the
    loss is lower the nearer the rate is to 0.003.
    """
    program = tmp_path / "train.py"
    program.write_text(_PROGRAM)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {program} {tmp_path}/starts "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr("evaluation.study.runner.PYTHON", str(python))
    return tmp_path / "starts"


_PROGRAM = """
import json, os, sys, time
starts, *words = sys.argv[1:]
settings = dict(word.split("=", 1) for word in words if "=" in word)
run, seed, rate = settings["run.dir"], int(settings["seed"]), float(settings["optim.lr"])
open(starts, "a").write(settings["run.name"] + "\\n")
def leave(state, **measured):
    os.makedirs(run, exist_ok=True)
    with open(run + "/journal.jsonl", "a") as journal:
        journal.write(json.dumps({"step": 6, "seconds": 1.5, **measured}) + "\\n")
    open(run + "/state", "w").write(state + " -\\n")
if seed == 6 and not os.path.exists(run):
    os.makedirs(run)
    leave("running", loss=3.0)
    sys.exit(f"error: {run} is in use by process 1; wait for it, end it, or choose another run.dir")
if seed == 7:
    sys.exit("error: no luck")
if seed == 8:
    leave("failed", loss=None)
    sys.exit("error: step 6: the loss, the gradient norm or a weight is NaN or infinite")
if seed == 9:
    leave("running", loss=3.0)
    time.sleep(300)
leave("done", val_loss=3 + abs(rate - 3e-3) * 100 + seed / 100)
"""
