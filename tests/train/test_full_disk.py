"""A disk that runs out while a run trains: one line, nothing lost, and the run goes on once there is room."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import assert_same_run, checkpoint_steps, finish, measured, start, train_here

Settings = Callable[..., dict[str, Any]]


def limit_files(size_bytes: int) -> None:
    """Makes writes beyond a size fail, as a quota does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB: one checkpoint fits, and not two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_checkpoint_that_does_not_fit_ends_the_run_in_one_line_and_those_before_are_intact(
    settings: Settings, tmp_path: Path
) -> None:
    steady = {"optim.schedule": "constant"}
    assert train_here(settings({**steady, "train.max_steps": 6}))[0] == 0
    log = tmp_path / "log.txt"
    assert finish(start(settings(steady), log, prepare=partial(limit_files, 60_000))) == 2
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"{tmp_path}/run/checkpoints/step-00000012: the disk or quota is full" in errors[0]
    assert "Traceback" not in log.read_text()
    assert checkpoint_steps(tmp_path / "run") == [6]
    assert not list(tmp_path.rglob(".incomplete-*"))

    assert train_here(settings(steady))[0] == 0
    assert train_here(settings(steady, run="roomy"))[0] == 0
    assert_same_run(tmp_path / "run", tmp_path / "roomy", step=12)


def test_a_small_file_system_that_fills_up_loses_nothing(
    small_disk: Path, settings: Settings, tmp_path: Path
) -> None:
    run = small_disk / "run"
    often = settings({"train.save_every": 3, "train.keep_last": 4, "train.save_best": False})
    log = tmp_path / "log.txt"
    assert finish(start({**often, "run.dir": str(run)}, log)) == 2
    shown = log.read_text()
    assert "Traceback" not in shown
    assert shown.count("error: ") == 1
    assert "the disk or quota is full; what was saved before is intact" in shown
    assert checkpoint_steps(run) == [3]

    grown = ["mount", "-o", "remount,size=20m", str(small_disk)]
    subprocess.run(grown, check=True)
    assert finish(start({**often, "run.dir": str(run)}, log)) == 0
    assert "after step 3" in log.read_text()
    assert train_here({**often, "run.dir": str(tmp_path / "roomy")})[0] == 0
    assert_same_run(run, tmp_path / "roomy", step=12)


def test_a_journal_that_is_cut_short_by_the_disk_goes_on_line_by_line(settings: Settings, tmp_path: Path) -> None:
    """No checkpoint has been saved when the journal no longer fits; what else a run writes is shorter."""
    log, steps = tmp_path / "log.txt", 60
    long = settings({"train.max_steps": steps, "train.save_every": 0, "train.eval_every": 0})
    assert finish(start(long, log, prepare=partial(limit_files, 6_000))) == 2
    assert "journal.jsonl: the disk or quota is full" in log.read_text()
    assert 0 < len(measured(tmp_path / "run")) < steps
    assert train_here(long)[0] == 0
    assert [record["step"] for record in measured(tmp_path / "run")] == list(range(1, steps + 1))
