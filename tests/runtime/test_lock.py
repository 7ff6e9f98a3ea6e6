import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parallax.errors import DiskFullError, RunError
from parallax.runtime.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from parallax.runtime.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from parallax.runtime.lock import RunLock
with RunLock(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    print(child, flush=True)
    time.sleep(60)
"""


@contextmanager
def _process(script: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python process that holds the folder's lock, and the line it printed once it did."""
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def _take(folder: Path) -> None:
    with RunLock(folder):
        pass


def test_a_folder_held_by_a_live_process_is_refused_naming_it_and_free_after_kill_9(tmp_path: Path) -> None:
    with _process(HOLD, tmp_path) as (process, line):
        assert line == "held"
        with pytest.raises(RunError) as caught:
            _take(tmp_path)
        message = str(caught.value)
        expected = (
            f"{tmp_path} is in use by process {process.pid} on {socket.gethostname()} since {time.strftime('%Y')}"
        )
        assert message.startswith(expected)
        assert message.endswith("; wait for it, end it, or choose another run.dir")
        assert "\n" not in message
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        _take(tmp_path)


def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    with _process(HOLD_AND_FORK, tmp_path) as (process, line):
        child = int(line)
        try:
            with pytest.raises(RunError, match=f"process {process.pid} "):
                _take(tmp_path)
            process.kill()
            process.wait(timeout=30)
            os.kill(child, 0)
            _take(tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_second_lock_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} on"):
        _take(tmp_path)


def test_the_lock_is_free_after_the_block_even_when_it_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunLock(tmp_path):
        raise KeyboardInterrupt
    _take(tmp_path)


def test_a_lock_can_be_taken_again_and_other_folders_are_free(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "a" / "run")
    for _ in range(2):
        with lock:
            _take(tmp_path / "b")
    with RunLock(tmp_path / "a" / "run"), pytest.raises(RunError):
        lock.__enter__()


def test_a_holder_that_has_not_signed_yet_is_another_process(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for text in ("", "{", "[]", "{}"):
            (tmp_path / ".lock").write_text(text)
            with pytest.raises(RunError, match="is in use by another process;"):
                _take(tmp_path)


def test_a_shorter_signature_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("x" * 4000)
    with RunLock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} on"):
        _take(tmp_path)


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "inner"):
        with pytest.raises(RunError, match=r"is not a folder; choose another run\.dir"):
            _take(path)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "open", _raise(code))
    with pytest.raises(RunError, match=f"{tmp_path} cannot be written to .*; choose another"):
        _take(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", _raise(errno.ENOLCK))
    with pytest.raises(RunError, match="file system without locks"):
        _take(tmp_path)


def test_a_disk_without_room_for_the_signature_is_full_and_the_lock_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", _raise(errno.ENOSPC))
        with pytest.raises(DiskFullError):
            _take(tmp_path)
    _take(tmp_path)


def _raise(code: int) -> object:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return refuse
