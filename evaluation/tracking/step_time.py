import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evaluation.tracking.run import ShortRun
from evaluation.tracking.store import Kind, StoreServer
from parallax.metrics.journal import read_journal

_WARM_UP_STEPS = 20
_WINDOW = 10
"""Steps that are timed together: a journal's clock has milliseconds."""


class StepSeconds(NamedTuple):
    """Median seconds of a step in runs that took turns; a list has one number a round."""

    without: list[float]
    """No tracker."""
    answering: list[float]
    """A tracker whose server is there all the time."""
    killed: list[float]
    """A tracker whose server is killed after a quarter of the run, and started again at once."""
    again: list[float]
    """No tracker: what differs from `without` is noise."""


def time_steps(kind: Kind, folder: Path, corpus: Path, rounds: int, steps: int) -> StepSeconds:
    """Times runs of as many steps, four a round.

    Raises:
        BackendError: server or run did not do their part in time.
    """
    found = StepSeconds([], [], [], [])
    server = StoreServer(kind, folder / "server")
    try:
        server.start()
        for number in range(rounds):

            def run(arm: str, uri: str | None, disturb: Callable[[ShortRun], None], here: int = number) -> float:
                return _time_run(ShortRun(folder / f"{here}-{arm}", corpus, uri, steps), disturb)

            found.without.append(run("without", None, _leave_alone))
            found.answering.append(run("answering", server.url, _leave_alone))
            found.killed.append(run("killed", server.url, lambda short: _restart(server, short, steps // 4)))
            found.again.append(run("again", None, _leave_alone))
    finally:
        server.stop()
    return found


def ratios(times: list[float], by: list[float]) -> list[float]:
    """Round by round."""
    return [time / other for time, other in zip(times, by, strict=True)]


def _leave_alone(run: ShortRun) -> None:
    """Disturbs nothing."""


def _restart(server: StoreServer, run: ShortRun, step: int) -> None:
    run.wait_until(lambda: run.lines >= step, f"step {step}")
    server.kill()
    server.start()


def _time_run(run: ShortRun, disturb: Callable[[ShortRun], None]) -> float:
    try:
        disturb(run)
        run.finish()
        # By the wall clock: the meter behind `seconds` stands still while a line is handed over.
        clock = [float(line["time"]) for line in read_journal(run.path / "journal.jsonl")][_WARM_UP_STEPS:]
    finally:
        run.kill()
    spans = [late - early for early, late in zip(clock, clock[_WINDOW:], strict=False)]
    return statistics.median(spans) / _WINDOW
