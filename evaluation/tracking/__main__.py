"""`python -m evaluation.tracking [--stores sqlite postgresql] [--rounds N] [--steps N]`."""

import argparse
import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from evaluation.output import print_tables
from evaluation.tracking.run import ShortRun, prepare_text
from evaluation.tracking.store import KINDS, Kind, StoreServer, open_folder
from evaluation.tracking.trial import Trial, run_trial
from parallax.errors import run_and_explain
from parallax.metrics.journal import read_journal

_WARM_UP_STEPS = 10
_HEADER = [
    "store",
    "steps",
    "samples",
    "numbers",
    "missing before sync",
    "missing",
    "doubled",
    "foreign",
    "end, s",
    "starts, s",
]
_TIME_HEADER = ["store", "without, ms", "with, ms", "ratio", "ratios by round"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study and prints two tables; returns the exit code: 1 where a line was missing or doubled."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.tracking", description="MLflow servers, killed.")
    parser.add_argument("--stores", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="of step times, with and without tracker; 0: none")
    parser.add_argument("--steps", type=int, default=400, help="of each run whose step time is taken")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _study(given))


def _study(given: argparse.Namespace) -> int:
    console = Console(highlight=False)
    with open_folder() as folder:
        corpus = prepare_text(folder / "text")
        trials = {kind: run_trial(kind, folder / kind, corpus, console.print) for kind in given.stores}
        rows = [_row(kind, trial) for kind, trial in trials.items()]
        print_tables(
            console, [("The server killed three times, the last time until after the run's end", _HEADER, rows)]
        )
        if given.rounds:
            rows = [
                _time_row(kind, *_step_seconds(kind, folder / f"{kind}-times", corpus, given))
                for kind in given.stores
            ]
            title = f"A step with and without tracker, medians over {given.rounds} runs each, which took turns"
            print_tables(console, [(title, _TIME_HEADER, rows)])
    return 0 if all(t.after.missing == t.after.doubled == t.after.foreign == 0 for t in trials.values()) else 1


def _row(kind: str, trial: Trial) -> list[str]:
    after, starts = trial.after, ", ".join(f"{seconds:.0f}" for seconds in trial.start_seconds)
    counts = [
        after.steps,
        after.samples,
        after.values,
        trial.before.missing,
        after.missing,
        after.doubled,
        after.foreign,
    ]
    return [kind, *(f"{count:,}" for count in counts), f"{trial.end_seconds:.1f}", starts]


def _step_seconds(
    kind: Kind, folder: Path, corpus: Path, given: argparse.Namespace
) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each step, by run, without and with a server that answers all the time; interleaved."""
    without: list[list[float]] = []
    tracked: list[list[float]] = []
    server = StoreServer(kind, folder / "server")
    try:
        server.start()
        for number in range(given.rounds):
            for uri, times in ((None, without), (server.url, tracked)):
                times.append(
                    _time_run(folder / f"{number}-{'with' if uri else 'without'}", corpus, uri, given.steps)
                )
    finally:
        server.stop()
    return without, tracked


def _time_run(folder: Path, corpus: Path, uri: str | None, steps: int) -> list[float]:
    run = ShortRun(folder, corpus, uri, steps)
    try:
        run.finish()
        # The clock of the whole run: `step_seconds` would leave out what is done between two steps.
        clock = [record["seconds"] for record in read_journal(run.path / "journal.jsonl")]
    finally:
        run.kill()
    return [late - early for early, late in pairwise(clock)][_WARM_UP_STEPS:]


def _time_row(kind: str, without: list[list[float]], tracked: list[list[float]]) -> list[str]:
    plain, slowed = (statistics.median([s for run in runs for s in run]) for runs in (without, tracked))
    ratios = [statistics.median(b) / statistics.median(a) for a, b in zip(without, tracked, strict=True)]
    return [kind, f"{plain * 1e3:.1f}", f"{slowed * 1e3:.1f}", f"{slowed / plain:.3f}", _listed(ratios)]


def _listed(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


if __name__ == "__main__":
    sys.exit(main())
