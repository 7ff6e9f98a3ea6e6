"""Only processes of the run are ended, and only those that would outlive it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest

from parallax.runtime.members import Member, end_members, this_member


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as started:
        yield started
        started.kill()


def member_of(process: subprocess.Popen[bytes], rank: int) -> Member:
    started = psutil.Process(process.pid).create_time()
    return replace(this_member(rank), pid=process.pid, started=started)


def assert_lives(process: subprocess.Popen[bytes]) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)


def test_a_lost_process_is_killed_after_its_grace(process: subprocess.Popen[bytes]) -> None:
    end_members([this_member(0), member_of(process, 1)], lost=[1], grace_seconds=0.1)
    assert process.wait(10) == -signal.SIGKILL


def test_a_process_that_stands_still_is_killed_without_being_lost(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    end_members([this_member(0), member_of(process, 1)], lost=[2], grace_seconds=0)
    assert process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "other",
    [
        {"started": 1.0},
        {"host": "elsewhere"},
    ],
)
def test_a_process_that_only_has_the_number_of_a_lost_one_lives(
    other: dict[str, object], process: subprocess.Popen[bytes]
) -> None:
    end_members([replace(member_of(process, 1), **other)], lost=[1], grace_seconds=0)
    assert_lives(process)


def test_a_survivor_that_runs_is_left_to_end_itself(process: subprocess.Popen[bytes]) -> None:
    end_members([this_member(0), member_of(process, 1)], lost=[2], grace_seconds=0)
    assert_lives(process)
