"""`python -m evaluation.slurm.soak [--faults N] [--seed N] [--output DIR]`: faults at random over one run."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from evaluation.slurm.cluster import Cluster, why_no_cluster
from evaluation.slurm.disturb import FAULTS
from evaluation.slurm.runs import SlurmRun
from parallax.errors import BackendError, run_and_explain
from parallax.runtime.files import write_text_atomic

_LATEST_SECONDS = 8.0
_RECOVERY_SECONDS = 240.0
_SETTINGS = ("train.save_every=50", "train.keep_last=5", "runtime.deadline_seconds=10")


@dataclass(frozen=True)
class Recovery:
    """What a fault cost."""

    fault: str
    at_step: int
    """The last one in the journal when it struck."""
    resumed_at: int
    """The checkpoint that the next attempt went on from."""
    seconds: float
    """From the fault to the next attempt's first step in the journal."""
    released: int
    """Times that Slurm held the job until the operator let it go."""

    @property
    def lost(self) -> int:
        """Steps that had to be trained again."""
        return max(0, self.at_step - self.resumed_at)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each fault, and whether the run ended as if there had been none; 1 where it did not."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.slurm.soak", description=__doc__)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500, help="of the run, which must outlast the faults")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments")
    parser.add_argument("--output", type=Path, help="folder that is kept, for the runs and their logs")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _soak(given))


def _soak(given: argparse.Namespace) -> int:
    if (why := why_no_cluster()) is not None:
        raise BackendError(f"no cluster for the faults: {why}")
    console = Console()
    with tempfile.TemporaryDirectory() as scratch, Cluster() as cluster:
        folder = given.output or Path(scratch)
        runs = [SlurmRun(folder / name, cluster, mlflow=True, steps=given.steps) for name in ("calm", "stormy")]
        calm, stormy = runs
        cluster.finish(calm.submit(*_SETTINGS), calm.log, 1800.0)
        console.print(f"undisturbed: {given.steps} steps, loss {calm.losses[-1]!r}", highlight=False)
        job = stormy.submit(*_SETTINGS, variables={"PARALLAX_RESTARTS": str(2 * given.faults)})
        recoveries = _let_loose(given.faults, Random(given.seed), cluster, stormy, job, console)
        cluster.wait_until(
            lambda: not cluster.tend(job) and cluster.show(job).is_over, "the end", 1800.0, stormy.log
        )
        ended = cluster.show(job)
        write_text_atomic(folder / "recoveries.json", json.dumps([asdict(r) for r in recoveries], indent=1) + "\n")
        _print_faults(console, recoveries)
        is_same = stormy.losses == calm.losses
        console.print(
            f"{len(recoveries)} faults of {given.faults}, {ended.restarts} restarts, job {ended.state}, "
            f"{sum(r.released for r in recoveries)} time(s) let go by hand; journal without gap or repetition; "
            f"{given.steps} losses {'equal' if is_same else 'DIFFER'} bit for bit",
            highlight=False,
        )
        return 0 if is_same and ended.state == "COMPLETED" and len(recoveries) == given.faults else 1


def _let_loose(
    count: int, random: Random, cluster: Cluster, run: SlurmRun, job: str, console: Console
) -> list[Recovery]:
    """Each fault strikes a random time after an attempt has claimed the run, be it loading, training or saving."""
    names = [name for _ in range(count) for name in FAULTS][:count]
    random.shuffle(names)
    found: list[Recovery] = []
    for name in names:
        time.sleep(random.uniform(0, _LATEST_SECONDS))
        if cluster.show(job).is_over:
            console.print("the run is done before the last fault: --steps is too small")
            break
        found.append(_strike(name, random, cluster, run, job))
        last = found[-1]
        held = ", held by Slurm and let go" if last.released else ""
        console.print(f"{len(found):>3} {name}: {last.seconds:.0f} s, {last.lost} steps{held}", highlight=False)
    return found


def _strike(name: str, random: Random, cluster: Cluster, run: SlurmRun, job: str) -> Recovery:
    released = 0

    def wait(condition: Callable[[], bool], what: str) -> None:
        def is_so() -> bool:
            nonlocal released
            released += cluster.tend(job)
            return condition()

        cluster.wait_until(is_so, f"{what} after {name}", _RECOVERY_SECONDS, run.log)

    wait(lambda: run.attempt(job) == cluster.show(job).restarts, "the claim")
    attempt, at_step, starts, began = run.attempt(job), run.step, len(run.starts), time.monotonic()
    repair = FAULTS[name](cluster, run, job, random)
    # Not always the next: Slurm may still tell a node that came back to end the attempt that it left.
    wait(lambda: run.attempt(job) > attempt, "another attempt")
    wait(lambda: len(run.starts) > starts, "a start")
    resumed_at = run.starts[-1]
    wait(lambda: run.step > resumed_at, "a step")
    seconds = time.monotonic() - began
    repair()
    return Recovery(name, at_step, resumed_at, seconds, released)


def _print_faults(console: Console, recoveries: Sequence[Recovery]) -> None:
    table = Table(title="back in training", title_justify="left", box=None, pad_edge=False)
    for column in ("fault", "times", "seconds, median", "longest", "steps lost, most"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for name in FAULTS:
        own = sorted((r for r in recoveries if r.fault == name), key=lambda r: r.seconds)
        if own:
            median, longest = own[len(own) // 2].seconds, own[-1].seconds
            table.add_row(name, str(len(own)), f"{median:.0f}", f"{longest:.0f}", str(max(r.lost for r in own)))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
