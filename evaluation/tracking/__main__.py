"""`python -m evaluation.tracking [--stores sqlite postgresql] [--rounds N] [--steps N] [--times-only]`."""

import argparse
import statistics
import sys
from collections.abc import Sequence

from rich.console import Console

from evaluation.output import print_tables
from evaluation.tracking.run import prepare_text
from evaluation.tracking.step_time import StepSeconds, ratios, time_steps
from evaluation.tracking.store import KINDS, open_folder
from evaluation.tracking.trial import Trial, run_trial
from parallax.errors import run_and_explain

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
_TIME_HEADER = ["store", "no tracker, ms", "x, server there", "x, server killed", "x, no tracker again"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study and prints two tables; returns the exit code: 1 where a line was missing or doubled."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.tracking", description="MLflow servers, killed.")
    parser.add_argument("--stores", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="of step times, with and without tracker; 0: none")
    parser.add_argument("--steps", type=int, default=400, help="of each run whose step time is taken")
    parser.add_argument("--times-only", action="store_true", help="without the comparison of every number")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _study(given))


def _study(given: argparse.Namespace) -> int:
    console = Console(highlight=False)
    with open_folder() as folder:
        corpus = prepare_text(folder / "text")
        exact = True
        if not given.times_only:
            trials = {kind: run_trial(kind, folder / kind, corpus, console.print) for kind in given.stores}
            rows = [_row(kind, trial) for kind, trial in trials.items()]
            title = "The server killed three times, the last time until after the run's end"
            print_tables(console, [(title, _HEADER, rows)])
            exact = all(t.after.missing == t.after.doubled == t.after.foreign == 0 for t in trials.values())
        if given.rounds:
            rows = [
                _time_row(kind, time_steps(kind, folder / f"{kind}-times", corpus, given.rounds, given.steps))
                for kind in given.stores
            ]
            title = f"A step by one without tracker, median and all of {given.rounds} rounds"
            print_tables(console, [(title, _TIME_HEADER, rows)])
    return 0 if exact else 1


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


def _time_row(kind: str, times: StepSeconds) -> list[str]:
    arms = (times.answering, times.killed, times.again)
    by_round = [_listed(ratios(arm, times.without)) for arm in arms]
    return [kind, f"{statistics.median(times.without) * 1e3:.1f}", *by_round]


def _listed(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({', '.join(f'{value:.2f}' for value in sorted(values))})"


if __name__ == "__main__":
    sys.exit(main())
