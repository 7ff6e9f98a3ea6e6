"""A launcher's exit code is passed through, signals reach it, and nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from launched import CHECKOUT, environment, write_tiny_run

_SECONDS = 60.0
_START = "import sys; from launch.start import start; sys.exit(start(['sh', '-c', sys.argv[1]], {'PLANNED': '7'}))"

Begin = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a shell script as a launcher, in `tmp_path`; what is left of it is ended."""
    begun: list[subprocess.Popen[str]] = []

    def begin_it(script: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _START, f"cd {tmp_path}; {script}"]
        begun.append(subprocess.Popen(command, env=environment(), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin_it
    for process in begun:
        process.kill()
        process.communicate(timeout=_SECONDS)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def pid_in(path: Path) -> int:
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a launch that a failed test left, and all that it started."""
    if process.poll() is None:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        process.wait(_SECONDS)


def test_the_exit_code_and_the_environment_are_passed_through(begin: Begin) -> None:
    assert begin("exit $((PLANNED + 4))").wait(_SECONDS) == 11


def test_a_launcher_ended_by_a_signal_has_the_shells_exit_code(begin: Begin) -> None:
    assert begin("kill -9 $$").wait(_SECONDS) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_reach_the_launcher(begin: Begin, tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    process = begin(f"trap 'exit 5' {name}; echo $$ > ready; while :; do sleep 0.05; done")
    pid_in(tmp_path / "ready")
    process.send_signal(number)
    assert process.wait(_SECONDS) == 5


def test_what_a_dead_launcher_left_behind_is_asked_to_stop(begin: Begin, tmp_path: Path) -> None:
    process = begin(
        "sh -c 'trap \"echo saved > saved; exit\" TERM; echo $$ > worker; while :; do sleep 0.05; done' & "
        "while [ ! -s worker ]; do sleep 0.05; done; kill -9 $$"
    )
    worker = pid_in(tmp_path / "worker")
    assert process.wait(_SECONDS) == 128 + signal.SIGKILL
    assert is_gone(worker)
    assert (tmp_path / "saved").exists()


def test_the_launcher_is_asked_to_stop_when_this_process_is_killed(begin: Begin, tmp_path: Path) -> None:
    process = begin("trap 'echo told > told; exit' TERM; echo $$ > ready; while :; do sleep 0.05; done")
    launcher = pid_in(tmp_path / "ready")
    process.kill()
    wait_for(lambda: is_gone(launcher))
    assert (tmp_path / "told").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("via", ["torchrun", "accelerate"])
@pytest.mark.parametrize("victim", ["plan", "launcher"])
def test_no_rank_outlives_a_killed_launch(via: str, victim: str, tmp_path: Path) -> None:
    config = write_tiny_run(tmp_path)
    settings = ["train.max_steps=1000000", f"run.dir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "launch", str(config), "--via", via, "--gpus-per-node", "2", *settings],
        env=environment(),
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        journal = tmp_path / "run" / "journal.jsonl"
        wait_for(lambda: journal.exists() and journal.stat().st_size > 0)
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 3  # the launcher and two ranks
        os.kill(process.pid if victim == "plan" else started[0].pid, signal.SIGKILL)
        process.wait(_SECONDS)
        wait_for(lambda: all(is_gone(child.pid) for child in started))
    finally:
        end(process)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("via", ["local", "torchrun", "accelerate"])
def test_ctrl_c_saves_and_leaves_no_process(via: str, tmp_path: Path) -> None:
    config = write_tiny_run(tmp_path)
    ranks = "1" if via == "local" else "2"
    settings = ["train.max_steps=1000000", f"run.dir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "launch", str(config), "--via", via, "--gpus-per-node", ranks, *settings],
        env=environment(),
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        journal = tmp_path / "run" / "journal.jsonl"
        wait_for(lambda: journal.exists() and journal.stat().st_size > 0)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(_SECONDS) != 0
        assert all(is_gone(child.pid) for child in started)
        assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    finally:
        end(process)
