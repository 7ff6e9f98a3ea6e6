import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.study.plan import PlannedRun
from evaluation.study.show import StudyProgress
from evaluation.study.status import START_MARK, Status, log_of, read_status
from parallax.errors import RunError

_POLL_SECONDS = 0.2
_SAVE_SECONDS = 60.0
_HELD_SECONDS = 90.0
PYTHON = sys.executable
_HELD = "is in use by"


@dataclass
class _Process:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    deadline: float
    asked: bool = False
    """Whether it was told to stop because its time was over."""


class LocalRunner:
    """Trains runs on this machine, a few at a time, each a real `python -m parallax.train` with a time limit.

    Runs that are done are kept; one that was cut off goes on from its checkpoint. Runs die with the runner: a
    runner that was killed leaves none behind, and the same command goes on.

    Args:
        jobs: processes at a time.
        limit_seconds: for one start of one run.
        nice: what is added to the priority number of each.
        show: told about beginnings and ends.
    """

    def __init__(self, jobs: int, limit_seconds: float, nice: int, show: StudyProgress) -> None:
        self._jobs = jobs
        self._limit = limit_seconds
        self._nice = nice
        self._show = show
        self._waiting: list[PlannedRun] = []
        self._working: list[_Process] = []
        self._began = 0.0

    def run(self, runs: Sequence[PlannedRun]) -> dict[PlannedRun, Status]:
        """Brings all runs to their end.

        Returns:
            How each stands: done or diverged.

        Raises:
            RunError: some failed or took too long; the others are done.
            KeyboardInterrupt: it was asked to stop, and all that ran have saved.
        """
        self._waiting = [run for run in runs if not read_status(run).is_over]
        self._began = time.monotonic()
        failed: dict[PlannedRun, str] = {}
        old = signal.signal(signal.SIGTERM, _interrupt)
        try:
            while self._waiting or self._working:
                while self._waiting and len(self._working) < self._jobs:
                    self._start(self._waiting.pop(0))
                time.sleep(_POLL_SECONDS)
                failed |= self._collect()
                self._show.update([one.run for one in self._working])
        finally:
            self._stop_all()
            signal.signal(signal.SIGTERM, old)
        if failed:
            run, why = next(iter(failed.items()))
            raise RunError(
                f"{len(failed)} of {len(runs)} runs failed, the others are done; {run.folder.name}: {why} "
                f"(log {log_of(run)}); the same command tries again"
            )
        return {run: read_status(run) for run in runs}

    def _start(self, run: PlannedRun) -> None:
        log = log_of(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [PYTHON, "-m", "evaluation.study.child", str(self._nice), str(os.getpid())]
        with log.open("ab") as output:
            output.write(f"{START_MARK}{time.strftime('%F %T')} {' '.join(run.overrides)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                [*command, str(run.base), *run.overrides],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(run, self._jobs),
                start_new_session=True,  # Ctrl-C is for the runner, which then asks each once
            )
        self._working.append(_Process(run, process, time.monotonic() + self._limit))
        self._show.begin(run)

    def _collect(self) -> dict[PlannedRun, str]:
        """Takes away what has ended; those that failed, and why."""
        failed, now = {}, time.monotonic()
        for one in list(self._working):
            code = one.process.poll()
            if code is None:
                self._watch_time(one)
                continue
            self._working.remove(one)
            status = read_status(one.run)
            self._show.end(one.run, status)
            if status.is_over:
                continue
            if status.error is not None and _HELD in status.error and now < self._began + _HELD_SECONDS:
                self._waiting.append(one.run)  # a leftover of a runner that was killed is still saving
            elif one.asked:
                failed[one.run] = f"stopped after {self._limit / 3600:.3g} hours at step {status.step}"
            else:
                failed[one.run] = status.error or f"exit code {code}"
        return failed

    def _watch_time(self, one: _Process) -> None:
        now = time.monotonic()
        if now > one.deadline and not one.asked:
            one.asked = True
            one.process.terminate()
        elif now > one.deadline + _SAVE_SECONDS:
            one.process.kill()

    def _stop_all(self) -> None:
        """Has all that runs save and leave; who does not within a minute is killed."""
        for one in self._working:
            one.process.terminate()
        end = time.monotonic() + _SAVE_SECONDS
        for one in self._working:
            try:
                one.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        self._working.clear()


def child_environment(run: PlannedRun, jobs: int) -> dict[str, str]:
    """The environment of a run: the processors are shared out unless somebody said otherwise."""
    environment = dict(os.environ)
    checkout = str(Path(__file__).resolve().parents[2])
    paths = [checkout, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    if run.config.runtime.num_threads is None:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // jobs)))
    return environment


def num_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
