"""A terminal or a reader that goes away ends no training unsaved."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import checkpoint_steps, finish, num_lines, start, wait_until

Settings = Callable[..., dict[str, Any]]
LONG = {"train.max_steps": 3000, "train.save_every": 0, "train.eval_every": 0}


@pytest.mark.slow
def test_a_hang_up_saves_and_leaves(settings: Settings, tmp_path: Path) -> None:
    process = start(settings(LONG), tmp_path / "log.txt")
    wait_until(lambda: num_lines(tmp_path / "run") >= 3, process)
    os.kill(process.pid, signal.SIGHUP)  # type: ignore[arg-type]
    assert finish(process) == 128 + signal.SIGHUP
    assert len(checkpoint_steps(tmp_path / "run")) == 1


def _write_into_a_pipe_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(writer)
    os.close(reader)


@pytest.mark.slow
def test_a_reader_that_goes_away_silences_the_run_and_does_not_end_it(settings: Settings, tmp_path: Path) -> None:
    process = start(settings(), tmp_path / "log.txt", _write_into_a_pipe_that_nobody_reads)
    assert finish(process) == 0
    assert checkpoint_steps(tmp_path / "run") == [6, 12]
    assert num_lines(tmp_path / "run") == 12
