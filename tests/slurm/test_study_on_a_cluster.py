"""A whole study by one command on a real cluster: two arrays, each followed by a job that goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.slurm.cluster import CHECKOUT, Cluster
from parallax.config.yaml_strict import format_yaml
from parallax.data.prepare import prepare

OPTIONS = ("--time", "10", "--partition", "low", "--at-once", "3", "--cpus-per-rank", "1")


@pytest.mark.product
@pytest.mark.timeout(1200)
def test_one_command_tunes_trains_and_compares(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"line {n} says {n * n}.\n" for n in range(400)))
    prepare(str(tmp_path / "t.txt"), tmp_path / "corpus", val_fraction=0.2, num_workers=1)
    model = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "vocab_size": 257, "max_seq_len": 16}
    base = {
        "model": model,
        "data": {"path": str(tmp_path / "corpus")},
        "train": {"max_steps": 20, "global_batch": 2, "precision": "fp32", "eval_samples": 4},
        "runtime": {"device": "cpu", "num_threads": 1},
        "tracking": {"mlflow": False, "tensorboard": False},
    }
    design = {
        "title": "Small",
        "question": "Does it work?",
        "base": "base.yaml",
        "seeds": [0, 1, 2, 3, 4],
        "tuning": {"rates": [3e-3], "seeds": [0]},
        "arms": {"swap": {"model.use_swap": True}, "self": {"model.use_swap": False}},
        "reference": "swap",
        "comparisons": [["swap", "self"]],
        "power": {"smallest_effect": 0.1, "paired_sd": 0.05, "source": "assumed"},
    }
    (tmp_path / "base.yaml").write_text(format_yaml(base))
    (tmp_path / "small.yaml").write_text(format_yaml(design))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "evaluation.study", str(tmp_path / "small.yaml"), "--output", str(out)]
    command += ["--via", "slurm", "--", *OPTIONS]
    done = subprocess.run(
        command, env=cluster.environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr

    def is_over() -> bool:
        return not cluster.call("squeue", "--noheader")

    cluster.wait_until(is_over, "an empty queue", 900.0, out / "slurm")
    logs = "\n".join(path.read_text() for path in sorted((out / "slurm").glob("*/compare-*.out")))
    assert (out / "study.json").exists(), logs
    found = json.loads((out / "study.json").read_text())
    assert sorted((run["arm"], run["seed"]) for run in found["runs"]) == [
        (arm, seed) for arm in ("self", "swap") for seed in range(5)
    ]
    assert {run["stand"] for run in found["runs"]} == {"done"}
    assert sorted(path.name.split("-sweep-")[0] for path in (out / "slurm").iterdir()) == [
        "small-seeds",
        "small-tuning",
    ]
