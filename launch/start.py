import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

import psutil

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_SAVING_SECONDS = 60.0
"""How long processes that a dead launcher left behind may take to save and leave."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def start(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a launcher to its end, passes signals on to it, and leaves no process behind.

    The launcher gets SIGTERM when this process dies. Processes that it leaves behind become children of this one,
    on Linux, and are asked to stop.

    Args:
        argv: its command.
        environment: variables added to those here.

    Returns:
        Its exit code; 128 + the number of the signal that ended it.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parent = os.getpid()
    # A signal that comes before it can be passed on waits until then.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)

    def die_with_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    try:
        # A session of its own: a terminal's Ctrl-C would reach launcher and ranks, and the launcher passes it on.
        process = subprocess.Popen(
            list(argv), env={**os.environ, **environment}, preexec_fn=die_with_parent, start_new_session=True
        )
        _pass_signals_on(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    code = process.wait()
    _end_leftovers()
    return code if code >= 0 else 128 - code


def _pass_signals_on(process: subprocess.Popen[bytes]) -> None:
    def pass_on(number: int, frame: FrameType | None) -> None:
        if process.poll() is None:
            process.send_signal(number)

    for number in _PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)


def _end_leftovers() -> None:
    """Asks what the launcher left behind to stop, and ends what does not."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(left, timeout=_SAVING_SECONDS)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
