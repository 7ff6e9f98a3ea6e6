import random
import signal
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from evaluation.faults.network import Link, why_no_link
from evaluation.faults.trial import End, Trial
from evaluation.faults.worker import Setup

_FAULTS = ("kill -9", "SIGSTOP", "link down")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Row(NamedTuple):
    """One line of the table."""

    what: str
    trials: int
    median: str
    worst: str
    bound: str
    held: bool


def study_faults(trials: int, deadline_seconds: float, seed: int, console: Console) -> list[Row]:
    """From the fault, at a random moment to a random rank, until every process is gone."""
    rows, draw = [], random.Random(seed)
    for fault in _FAULTS:
        if fault == "link down" and (reason := why_no_link()) is not None:
            console.print(f"link down: not run ({reason})")
            continue
        ends = [one_fault(fault, deadline_seconds, draw) for _ in range(trials)]
        seconds = [end.seconds for end in ends]
        held = max(seconds) <= deadline_seconds
        bound = f"{deadline_seconds:g} s"
        rows.append(Row(fault, trials, f"{median(seconds):.2f} s", f"{max(seconds):.2f} s", bound, held))
    return rows


def one_fault(fault: str, deadline_seconds: float, draw: random.Random) -> End:
    """One trial of its own processes."""
    victim, step = draw.randrange(4), draw.randrange(3, 20)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        setup = Setup(folder, deadline_seconds, victim=victim)
        link = stack.enter_context(Link()) if fault == "link down" else None
        trial = stack.enter_context(Trial(behind(link, setup) if link else setup))
        trial.train().wait_for_step(step)
        return trial.after(link.cut if link else {"kill -9": trial.kill, "SIGSTOP": trial.stop}[fault])


def behind(link: Link, setup: Setup) -> Setup:
    """The setup with its victim at the far end of a link."""
    ranks = range(setup.layout.world_size)
    interfaces = tuple(link.there if rank == setup.victim else link.here for rank in ranks)
    return replace(setup, address=link.address, interfaces=interfaces, namespace=link.namespace)


def study_signals(signals: int, deadline_seconds: float, seed: int) -> list[Row]:
    """Steps between the one during which a signal came and the one that all left after."""
    draw, late, apart = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as folder, Trial(Setup(Path(folder), deadline_seconds)) as trial:
        for _ in range(signals):
            victim, number = draw.randrange(4), draw.choice(_STOP_SIGNALS)
            left = trial.signal_round(victim, number, draw.uniform(0, 0.5))
            apart += len({(one.step, one.signal) for one in left}) > 1
            arrived = left[victim].arrived
            assert arrived is not None
            late.append(left[victim].step - arrived)
    held = apart == 0 and max(late) <= 1
    return [
        Row("signal: steps until all left", signals, f"{median(late):g}", f"{max(late)}", "1", held),
        Row("signal: ranks that left apart", signals, "", f"{apart}", "0", apart == 0),
    ]


def study_agreement(steps: int, deadline_seconds: float) -> list[Row]:
    """A step with the agreement against one without, in turns in the same processes; on rank 0.

    The steps without are measured twice: how far these two lie apart is what the machine cannot tell.
    """
    with tempfile.TemporaryDirectory() as folder, Trial(Setup(Path(folder), deadline_seconds)) as trial:
        arms = trial.compare_steps(steps)
    names = ("step with agreement", "step without", "step without, again")
    rows = [
        Row(name, steps, _ms(median(seconds)), _ms(max(seconds)), "", held=True)
        for name, seconds in zip(names, arms, strict=True)
    ]
    with_it, without, again = map(median, arms)
    rows.append(Row("with / without", steps, f"{with_it / without:.3f}", "", "", held=True))
    rows.append(Row("without, again / without", steps, f"{again / without:.3f}", "", "", held=True))
    return rows


def print_rows(console: Console, title: str, rows: Sequence[Row]) -> None:
    """The table."""
    table = Table(title=title)
    for column in ("what", "trials", "median", "worst", "bound", "held"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(row.what, str(row.trials), row.median, row.worst, row.bound, "yes" if row.held else "NO")
    console.print(table)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"
