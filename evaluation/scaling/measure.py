import hashlib
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from evaluation.faults.network import Link
from evaluation.scaling.contenders import Contender
from evaluation.scaling.team import Step, Team
from parallax.runtime.files import write_text_atomic

_RESAMPLES = 2000


@dataclass(frozen=True)
class Timings:
    """A contender's steps, one a round."""

    steps: list[Step]

    def median(self, part: str = "step") -> float:
        """Of the steps, or of their updates or waits; seconds."""
        return statistics.median(getattr(step, part) for step in self.steps)

    @property
    def sent_bytes(self) -> int:
        """By a rank in a step."""
        return self.steps[0].sent_bytes


Rounds = dict[tuple[str, int], Timings]
"""By contender's name and rows of the batch."""


@dataclass(frozen=True)
class Study:
    """What is timed: the settings that all contenders share, and where results are kept.

    A measurement that the folder has already is not made again, so that a study that was broken off goes on.
    """

    config: str
    overrides: list[str]
    precision: str
    rounds: int
    output: Path | None
    console: Console

    def measure(
        self, contenders: Sequence[Contender], rows: Sequence[int], link: Link | None, megabits: float | None
    ) -> Rounds:
        """Steps of all contenders in turn, a first one each uncounted, over each of some numbers of rows.

        Args:
            contenders: started together, and so all in memory.
            rows: of the batch.
            link: between the halves of the ranks; None: one host.
            megabits: its bandwidth, which is part of the result's name.
        """
        overrides = [*self.overrides, f"train.global_batch={max(rows)}", f"train.micro_batch={max(rows)}"]
        common = {"config": self.config, "overrides": overrides, "precision": self.precision}
        names = [contender.name for contender in contenders]
        kept = self._file({**common, "names": names, "rows": list(rows), "mbit": megabits, "rounds": self.rounds})
        if kept is not None and kept.exists():
            self.console.print(f"from {kept}", highlight=False)
            return _from_json(kept.read_text())
        found = self._timed(contenders, rows, common, link)
        if kept is not None:
            write_text_atomic(kept, _to_json(found))
        return found

    def _timed(
        self, contenders: Sequence[Contender], rows: Sequence[int], common: dict[str, Any], link: Link | None
    ) -> Rounds:
        found: Rounds = {(c.name, count): Timings([]) for c in contenders for count in rows}
        with ExitStack() as stack:
            teams = {c.name: stack.enter_context(Team(c, common, link)) for c in contenders}
            for name, team in teams.items():
                firsts = [f"{team.step(count).step:.2f}" for count in rows]
                # The second still fills memory that the first has freed.
                team.step(max(rows))
                self.console.print(f"first: {name}: {', '.join(firsts)} s", highlight=False)
            for number in range(self.rounds):
                for count in rows:
                    for name, team in teams.items():
                        found[name, count].steps.append(team.step(count))
                self.console.print(f"round {number + 1} of {self.rounds}", highlight=False)
        return found

    def _file(self, settings: dict[str, Any]) -> Path | None:
        if self.output is None:
            return None
        self.output.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        return self.output / f"steps-{digest}.json"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by drawing from the values again and again."""
    drawn = np.random.default_rng(0).choice(np.asarray(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _to_json(found: Rounds) -> str:
    entries = [{"name": n, "rows": r, "steps": [s._asdict() for s in t.steps]} for (n, r), t in found.items()]
    return json.dumps(entries, indent=1) + "\n"


def _from_json(text: str) -> Rounds:
    entries = json.loads(text)
    return {(e["name"], e["rows"]): Timings([Step(**step) for step in e["steps"]]) for e in entries}
