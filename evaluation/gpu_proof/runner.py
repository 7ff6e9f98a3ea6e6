import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from evaluation.gpu_proof.checks import Check
from evaluation.gpu_proof.rows import Row, failed

_ROOT = Path(__file__).parents[2]
_TAIL_LINES = 15


def run_check(check: Check, device: str, quick: bool, seconds: float, say: Callable[[str], None]) -> Iterator[Row]:
    """The rows of a check that runs in a process group of its own, which is ended after so many seconds.

    A crash, a sticky CUDA error or a hang therefore ends this check and no other. What the process printed beside
    its rows is said only where a row failed.
    """
    command = [sys.executable, "-u", "-m", "evaluation.gpu_proof.child", check.function, device]
    with tempfile.TemporaryFile("w+", errors="replace") as noise:
        process = subprocess.Popen(
            [*command, "quick" if quick else "whole"],
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            cwd=_ROOT,
            start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(seconds, _give_up, (process, late))
        timer.start()
        has_failed = False
        assert process.stdout is not None
        try:
            for line in process.stdout:
                row = Row.from_dict(json.loads(line))
                has_failed |= row.verdict == "fail"
                yield row
            code = process.wait()
        finally:
            timer.cancel()
            _end(process)
            process.wait()
            process.stdout.close()
        if late.is_set():
            yield failed(
                "the check as a whole", f"not done after {seconds:.0f} s; --patience 2 gives it twice as long"
            )
        elif code:
            yield failed("the check as a whole", f"its process ended with code {code}")
        if has_failed or late.is_set() or code:
            _say_tail(noise, say)


def _give_up(process: "subprocess.Popen[str]", late: threading.Event) -> None:
    late.set()
    _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """Ends the process and the ranks and compilers that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _say_tail(noise: IO[str], say: Callable[[str], None]) -> None:
    noise.seek(0)
    for line in noise.read().splitlines()[-_TAIL_LINES:]:
        say(f"    | {line}")
