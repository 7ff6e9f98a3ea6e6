"""`python -m evaluation.scaling.two_nodes [--link MEGABITS] [--rounds N]`: which axis belongs between nodes.

Two nodes of two ranks each: the track axis across the nodes and shards inside, against shards across and tracks
inside. Bytes are those that the interface counted.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.faults.network import Link, why_no_link
from evaluation.scaling.contenders import Contender
from evaluation.scaling.team import Team
from parallax.errors import BackendError, run_and_explain

ACROSS = Contender("tracks across nodes", ranks=4, track=2, dp_shard=2, track_across=True)
INSIDE = Contender("shards across nodes", ranks=4, track=2, dp_shard=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both; returns 1 where tracks across nodes do not spend a third of the time on the link or less."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.scaling.two_nodes", description=__doc__)
    parser.add_argument("--config", default="configs/reference.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a setting")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--link", type=float, default=100.0, metavar="MEGABITS", help="between the nodes")
    parser.add_argument("--rows", type=int, default=2, help="windows of a step")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _study(given))


def _study(given: argparse.Namespace) -> int:
    if (why := why_no_link()) is not None:
        raise BackendError(f"two nodes are two network namespaces: {why}")
    console = Console()
    batch = [f"train.global_batch={given.rows}", f"train.micro_batch={given.rows}"]
    common = {"config": given.config, "overrides": [*given.set, *batch], "precision": given.precision}
    title = f"{given.config}, {given.rows} windows, {given.link:g} Mbit/s between two nodes of two ranks"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", "s, no limit", "s, link", "slower by", "MiB on it", "s on it"):
        table.add_column(column, justify="right" if column else "left")
    seconds = {}
    for contender in (ACROSS, INSIDE):
        timed = partial(time_steps, contender, common, rows=given.rows, rounds=given.rounds, console=console)
        free, _ = timed(None)
        limited, sent = timed(given.link)
        seconds[contender.name] = 8 * sent / (given.link * 1e6)
        table.add_row(
            contender.name,
            f"{free:.2f}",
            f"{limited:.2f}",
            f"{limited - free:.2f}",
            f"{sent / 2**20:,.1f}",
            f"{seconds[contender.name]:.2f}",
        )
    console.print(table)
    ratio = seconds[INSIDE.name] / seconds[ACROSS.name]
    console.print(f"tracks across nodes spend 1/{ratio:.1f} of the time on the link; asked: at most 1/3")
    return 0 if ratio >= 3 else 1


def time_steps(
    contender: Contender,
    common: dict[str, Any],
    megabits: float | None,
    *,
    rows: int,
    rounds: int,
    console: Console,
) -> tuple[float, float]:
    """Median seconds of a step, and bytes over the link in the direction that carries more.

    Args:
        contender: the first half of its ranks on one node, the second on the other.
        common: see `Team`.
        megabits: of the link; None: as fast as this host.
        rows: windows of a step.
        rounds: steps counted.
        console: is told the first step.
    """
    with Link() as link:
        if megabits is not None:
            link.limit(megabits)
        with Team(contender, common, link) as team:
            first = team.step(rows)
            console.print(f"first step: {contender.name}: {first.step:.2f} s", highlight=False)
            before = _carried(link)
            steps = [team.step(rows).step for _ in range(rounds)]
            carried = [after - earlier for after, earlier in zip(_carried(link), before, strict=True)]
    return statistics.median(steps), max(carried) / rounds


def _carried(link: Link) -> tuple[int, int]:
    counters = Path("/sys/class/net") / link.here / "statistics"
    return int((counters / "tx_bytes").read_text()), int((counters / "rx_bytes").read_text())


if __name__ == "__main__":
    sys.exit(main())
