"""A process that truly has no more memory: one line, exit code 2, and the run goes on with the advice."""

import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finish, measured, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space by /proc"),
]
LARGE = {
    "model.hidden_size": 128,
    "model.intermediate_size": 512,
    "model.num_layers": 4,
    "train.global_batch": 1024,
    "train.max_steps": 2,
    "train.eval_every": 0,
}
"""A gigabyte and more of activations."""
LEFT_MIB = 500


def leave(mib: int) -> None:
    """Leaves this process so much address space beside what it has."""
    [size] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize:")]
    limit = int(size.split()[1]) * 1024 + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def test_a_run_without_memory_is_one_line_and_goes_on_with_less(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    run = settings(LARGE)
    assert finish(start(run, log, partial(leave, LEFT_MIB))) == 2
    said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(said) == 1, log.read_text()
    assert "out of memory on cpu with train.micro_batch=1024" in said[0]
    assert "goes on from the last checkpoint" in said[0]
    assert "Traceback" not in log.read_text()
    smaller = {**run, "train.micro_batch": 16, "train.global_batch": 32}
    assert finish(start({**smaller, "run.dir": run["run.dir"] + "-less"}, log, partial(leave, LEFT_MIB))) == 0
    assert len(measured(Path(run["run.dir"] + "-less"))) == 2
