"""`parallax demo` at reduced length: the commands a person would type, one after the other."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_world import Parallax

import parallax as package

TINY = Path(package.__file__).parents[1] / "configs" / "tiny.yaml"


@pytest.mark.slow
def test_the_demo_trains_evaluates_writes_and_draws(parallax_process: Parallax, tmp_path: Path) -> None:
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    config = yaml.safe_load(TINY.read_text())
    config["data"]["val_fraction"] = 0.002  # less to evaluate
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    asked = ["demo", "--config", "tiny.yaml", "--run-dir", "runs/demo", "--max-steps", 4]
    answer = parallax_process(*asked, cwd=tmp_path, timeout=240, **store)
    assert (answer.code, answer.err) == (0, "")
    shown = answer.out
    places = [
        shown.index(text)
        for text in (
            "1. Train",
            "$ parallax train tiny.yaml run.dir=runs/demo run.name=demo train.max_steps=4",
            "step      4/4",
            "2. Evaluate",
            "bits/byte",
            "unigram",
            "3. Let it write",
            "\nThe ",
            "4. Its loss curve",
            "loss in nats per token",
            "Try next",
            "parallax data prepare --input",
        )
    ]
    assert places == sorted(places)
    assert (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "runs" / "demo" / "curve.png").exists()


@pytest.mark.slow
def test_a_demo_that_is_complete_is_shown_again(parallax_process: Parallax, world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "run", tmp_path / "demo")
    answer = parallax_process("demo", "--config", "tiny.yaml", "--run-dir", tmp_path / "demo")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{tmp_path}/demo holds an earlier demo; it goes on, or is shown again")
    assert "complete at step 40" in answer.out
    assert "4. Its loss curve" in answer.out


@pytest.mark.slow
def test_ctrl_c_lets_the_training_save_and_ends_the_demo(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parallax.cli", "demo", "--config", str(TINY), "--run-dir", "demo"]
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**environment, **store},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        journal, deadline = tmp_path / "demo" / "journal.jsonl", time.monotonic() + 120
        while not (journal.exists() and journal.stat().st_size):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in out
    assert err == "the demo stopped: the command above ended with exit code 130\n"
    assert len(list((tmp_path / "demo" / "checkpoints").glob("step-*"))) == 1
