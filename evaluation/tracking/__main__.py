"""Runs tracked by a real MLflow server that is killed and started again three times meanwhile.

    python -m evaluation.tracking [--store sqlite --store postgresql] [--rounds 3] [--outage-steps 300]

Prints what of every run's journal the store holds afterwards, and the median step beside that of the same run
without a tracker, made before it and again after it. The exit code is 1 where a point is missing or doubled.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.output import print_tables
from evaluation.tracking.server import Server, Store, why_no_postgres
from evaluation.tracking.training import Setting
from evaluation.tracking.trial import Disturbed, disturb, untracked_step_seconds
from parallax.errors import ConfigError, run_and_explain

_STORES: tuple[Store, ...] = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Round:
    """One disturbed run between two without a tracker."""

    store: Store
    disturbed: Disturbed
    before: float
    """Seconds of a median step, as in `after`."""
    after: float

    @property
    def ratio(self) -> float:
        """Step time with the tracker, by that without."""
        return self.disturbed.step_seconds / statistics.fmean((self.before, self.after))

    @property
    def noise(self) -> float:
        """Step time of the second run without a tracker, by that of the first."""
        return self.after / self.before


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all rounds and prints two tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.tracking", description="A tracker, disturbed.")
    parser.add_argument("--store", action="append", choices=_STORES, help="default: both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outage-steps", type=int, default=300, help="that each outage lasts at least")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _study(given.store or _STORES, given.rounds, given.outage_steps))


def _study(stores: Sequence[Store], rounds: int, outage_steps: int) -> int:
    reason = why_no_postgres() if "postgresql" in stores else None
    if reason is not None:
        raise ConfigError(f"{reason}; or --store sqlite alone")
    found = []
    with tempfile.TemporaryDirectory(prefix="plx-tracking-") as folder:
        setting = Setting(Path(folder), outage_steps=outage_steps)
        setting.write()
        for number in range(rounds):
            for store in stores:
                found.append(_round(setting, store, f"{store}-{number}"))
                one = found[-1]
                print(
                    f"{store} {number + 1}/{rounds}: {one.disturbed.arrived}, step x {one.ratio:.3f}", flush=True
                )
    _show(found, stores)
    return 0 if all(one.disturbed.arrived.is_exact for one in found) else 1


def _round(setting: Setting, store: Store, name: str) -> Round:
    steps = 4 * setting.outage_steps
    before = untracked_step_seconds(setting, f"{name}-before", steps)
    with Server(store) as server:
        disturbed = disturb(setting, server, name, lambda text: print(f"{name}: {text}", flush=True))
    return Round(store, disturbed, before, untracked_step_seconds(setting, f"{name}-after", steps))


def _show(found: Sequence[Round], stores: Sequence[Store]) -> None:
    rows = []
    for one in found:
        told, early = one.disturbed.arrived, one.disturbed.arrived_before_sync
        outages = "/".join(str(lines) for lines in one.disturbed.missed_lines)
        counts = [told.points, early.missing, told.missing, told.doubled, told.foreign]
        rows.append([one.store, outages, *(f"{count:,}" for count in counts), one.disturbed.status])
    header = [
        "store",
        "steps in outages",
        "points",
        "missing at the end",
        "missing after sync",
        "doubled",
        "foreign",
    ]
    times = []
    for store in stores:
        ratios, noise = [[f(one) for one in found if one.store == store] for f in (_ratio, _noise)]
        times.append([store, _spread(ratios), _spread(noise)])
    median = statistics.median(one.before for one in found)
    console = Console()
    print_tables(
        console,
        [
            ("MLflow killed three times during a run", [*header, "status"], rows),
            (
                f"a median step, {median * 1e3:.1f} ms without a tracker",
                ["store", "tracked, by untracked", "untracked, by untracked"],
                times,
            ),
        ],
    )


def _ratio(one: Round) -> float:
    return one.ratio


def _noise(one: Round) -> float:
    return one.noise


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    sys.exit(main())
