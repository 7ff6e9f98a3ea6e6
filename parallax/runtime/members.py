import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

# A process's start time is computed from the boot time, which clock corrections move a little.
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class Member:
    """One process of a run, so described that no other can be taken for it."""

    rank: int
    host: str
    """This boot of this machine, and the process-id namespace in it."""
    pid: int
    started: float


def this_member(rank: int) -> Member:
    """The process that asks."""
    return Member(rank, _host(), os.getpid(), psutil.Process().create_time())


def end_members(members: Iterable[Member], lost: Iterable[int], grace_seconds: float) -> None:
    """Kills what would outlive the run on this host: the lost ranks, and every rank that stands still.

    A lost rank that still runs, cut off from the others, first has `grace_seconds` to end by itself. A process
    id that belongs to another process by now is left alone, and so is everything on other hosts.
    """
    lost, here = set(lost), _host()
    running = []
    for member in members:
        process = _find(member) if member.host == here and member.pid != os.getpid() else None
        if process is None:
            continue
        if _stands_still(process):
            _kill(process)
        elif member.rank in lost:
            running.append(process)
    _, left = psutil.wait_procs(running, timeout=grace_seconds)
    for process in left:
        _kill(process)


def _find(member: Member) -> psutil.Process | None:
    try:
        process = psutil.Process(member.pid)
        same = abs(process.create_time() - member.started) < _SAME_START_SECONDS
        over = process.status() == psutil.STATUS_ZOMBIE  # Its parent may take long to notice.
    except psutil.Error:
        return None
    return process if same and not over else None


def _stands_still(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.Error:
        return  # It ended by itself, or is another user's.


def _host() -> str:
    """Containers may share a host name, and hosts a process id: only both halves together tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
