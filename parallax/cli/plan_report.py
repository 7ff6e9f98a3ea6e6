from collections import defaultdict
from typing import TYPE_CHECKING, Any

from parallax.cli.output import print_table

if TYPE_CHECKING:
    from parallax.config.run import RunConfig
    from parallax.train.planning.rank_plan import RankPlan


def plan_report(run: "RunConfig", planned: "RankPlan", ranks_per_node: int) -> dict[str, Any]:
    """All figures as plain values: what `--json` prints, and what the tables are made of."""
    from dataclasses import asdict

    from parallax.metrics.flops import parameter_counts

    return {
        "world_size": planned.layout.world_size,
        "rank": planned.rank,
        "layout": asdict(planned.layout),
        "ranks_per_node": ranks_per_node,
        "global_batch": planned.global_batch,
        "micro_batch": run.train.micro_batch,
        "accumulation": planned.accumulation,
        "tokens_per_step": planned.global_batch * run.model.max_seq_len,
        "choices": [asdict(choice) for choice in planned.choices],
        "notes": planned.notes,
        "parameters": {
            **planned.parameters,
            "total": sum(planned.parameters.values()),
            "model": parameter_counts(run.model).total,
        },
        "memory_bytes": planned.memory,
        "peak_bytes": planned.peak_bytes,
        "traffic": _traffic(planned, ranks_per_node),
        "crossover": _crossover(run, planned, ranks_per_node),
        "seconds": planned.seconds,
    }


def _traffic(planned: "RankPlan", ranks_per_node: int) -> list[dict[str, Any]]:
    """Sums by axis and operation over an optimizer step."""
    from parallax.parallel.links import links_leaving_node

    rows: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    for collective, times in planned.collectives:
        row = rows[collective.axis, collective.kind, collective.ranks]
        row[0] += times
        row[1] += times * collective.sent_bytes
    return [
        {
            "axis": axis,
            "operation": operation,
            "ranks": ranks,
            "calls": calls,
            "sent_bytes": sent,
            "leaving_node_bytes": sent * links_leaving_node(planned.layout, axis, planned.rank, ranks_per_node),
        }
        for (axis, operation, ranks), (calls, sent) in rows.items()
    ]


def _crossover(run: "RunConfig", planned: "RankPlan", ranks_per_node: int) -> dict[str, Any] | None:
    """Tokens of a step above which DDP over the same ranks sends less; None without a track axis."""
    from parallax.config.layout import Layout
    from parallax.metrics.traffic import StepBytes, crossover_tokens, step_bytes
    from parallax.parallel.build import resolve_shared
    from parallax.parallel.links import links_leaving_node

    layout = planned.layout
    if layout.track == 1:
        return None
    copies = Layout(track=1, dp_replicate=layout.world_size, dp_shard=1)
    shared = resolve_shared(run.parallel.shared)
    tracks, ddp = step_bytes(run.model, layout, shared), step_bytes(run.model, copies, shared)
    found = {"tokens_by_rank": crossover_tokens(tracks, ddp), "tokens_by_node": None}
    if layout.world_size > ranks_per_node:
        by_axis = {
            name: links_leaving_node(layout, name, planned.rank, ranks_per_node) for name in ("track", "dp")
        }
        ring = links_leaving_node(copies, "dp", planned.rank, ranks_per_node)
        leaving = StepBytes(tracks.per_token * by_axis["track"], tracks.fixed * by_axis["dp"])
        found["tokens_by_node"] = crossover_tokens(leaving, StepBytes(0.0, ddp.fixed * ring))
    return found


def print_report(report: dict[str, Any]) -> None:
    """The tables of a plan, on stdout."""
    from parallax.train.planning.rank_plan import KINDS

    layout = report["layout"]
    order = "across" if layout["track_across"] else "inside"
    print(
        f"rank {report['rank']} of {report['world_size']}: track {layout['track']} ({order}) x dp_shard "
        f"{layout['dp_shard']} x dp_replicate {layout['dp_replicate']}, {report['ranks_per_node']} ranks a node"
    )
    print(
        f"batch {report['global_batch']:,}: {report['tokens_per_step']:,} tokens a step; on this rank "
        f"{report['accumulation']} x {report['micro_batch']} sequences"
    )
    for choice in report["choices"]:
        print(f"{choice['key']}={choice['value']}: {choice['reason']}")
    for note in report["notes"]:
        print(f"note: {note}")
    parameters = report["parameters"]
    parts = [name for name in parameters if name not in ("total", "model")]
    print_table(
        "\nparameters",
        ["", "this rank"],
        [
            *[[name, f"{parameters[name]:,}"] for name in parts],
            ["sum", f"{parameters['total']:,}"],
            ["of the model's", f"{parameters['model']:,}"],
        ],
    )
    memory = report["memory_bytes"]
    kinds = [kind for kind in KINDS if any(mib(phase.get(kind, 0)) != "0.0" for phase in memory.values())]
    print_table(
        "\nMiB in tensors, when a phase holds most",
        ["", *memory],
        [
            *[[kind, *(mib(phase.get(kind, 0)) for phase in memory.values())] for kind in kinds],
            ["sum", *(mib(sum(phase.values())) for phase in memory.values())],
        ],
    )
    _print_traffic(report)
    print(f"\npeak {mib(report['peak_bytes'])} MiB; planned in {report['seconds']:.1f} s")


def _print_traffic(report: dict[str, Any]) -> None:
    traffic = report["traffic"]
    if not traffic:
        print("\nno collectives")
        return
    columns = ["axis", "collective", "ranks", "calls", "MiB a rank sends", "MiB leave the node"]
    rows = [
        [
            row["axis"],
            row["operation"],
            str(row["ranks"]),
            f"{row['calls']:,}",
            mib(row["sent_bytes"]),
            mib(row["leaving_node_bytes"]),
        ]
        for row in traffic
    ]
    sums = [mib(sum(row[key] for row in traffic)) for key in ("sent_bytes", "leaving_node_bytes")]
    calls = sum(row["calls"] for row in traffic)
    print_table("\ncollectives of an optimizer step", columns, [*rows, ["sum", "", "", f"{calls:,}", *sums]])
    crossover = report["crossover"]
    if crossover is None:
        return
    print(f"\nDDP over the same ranks sends fewer bytes a rank {_above(crossover['tokens_by_rank'])}")
    if report["world_size"] > report["ranks_per_node"]:
        print(f"fewer leave the node {_above(crossover['tokens_by_node'])}")


def _above(tokens: float | None) -> str:
    if tokens is None:
        return "at no number of tokens"
    return f"above {tokens:,.0f} tokens a step" if tokens > 0 else "at any number of tokens"


def mib(num_bytes: float) -> str:
    """MiB with one decimal."""
    return f"{num_bytes / 2**20:,.1f}"
