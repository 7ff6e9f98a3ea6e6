from typing import TYPE_CHECKING, Any

from parallax.cli.output import print_table
from parallax.cli.plan_report import mib

if TYPE_CHECKING:
    from parallax.config.run import RunConfig
    from parallax.train.planning.advice import Change
    from parallax.train.planning.measured import Measured
    from parallax.train.planning.rank_plan import RankPlan
    from parallax.train.planning.step_time import Machine


def fit_report(
    run: "RunConfig", planned: "RankPlan", available: int, machine: "Machine", measured: "list[Measured]"
) -> dict[str, Any]:
    """Whether a planned rank fits, and otherwise what makes it."""
    from parallax.train.planning.advice import find_change
    from parallax.train.planning.fit import need_of
    from parallax.train.planning.measured import mark_of

    on_gpu = run.runtime.device != "cpu"
    need = need_of(planned, on_gpu=on_gpu)
    confirmed, mark = mark_of(measured, run, planned.layout, planned.peak_bytes)
    fits = need.fits(available)
    change = None
    if not fits:
        change = find_change(
            run, available, world_size=planned.layout.world_size, rank=planned.rank, machine=machine
        )
    return {
        "parts": need.parts,
        "need_bytes": need.total_bytes,
        "memory_bytes": available,
        "fits": fits,
        "measured_on_gpu": confirmed if on_gpu else None,
        "mark": mark if on_gpu else None,
        "change": _change(change) if change else None,
    }


def search_report(
    run: "RunConfig",
    available: int,
    world_size: int,
    machine: "Machine",
    measured: "list[Measured]",
    *,
    source: str,
) -> dict[str, Any]:
    """The fastest layouts that fit; `source` says where the machine's rate comes from."""
    from parallax.train.planning.search import search_layouts

    found = search_layouts(run, available, world_size=world_size, machine=machine)
    marks = [_mark(run, change, world_size, measured) for change in found.best]
    return {
        "memory_bytes": available,
        "fits": bool(found.best),
        "best": [_change(change) | mark for change, mark in zip(found.best, marks, strict=True)],
        "candidates": found.candidates,
        "planned": found.planned,
        "rate": f"{machine.flops / 1e12:g} TFLOP/s ({source}) x {machine.utilisation:g}",
        "bandwidth": f"{machine.link_bandwidth / 1e9:g} GB/s a rank, "
        f"{machine.node_bandwidth * 8 / 1e9:g} Gbit/s a node",
    }


def largest_report(
    run: "RunConfig", available: int, world_size: int, measured: "list[Measured]"
) -> dict[str, Any]:
    """The largest model of the run's family that fits."""
    from parallax.train.planning.advice import Change, need_of_run
    from parallax.train.planning.search import family_keys, largest_that_fits

    found, parameters = largest_that_fits(run, available, world_size=world_size)
    change = Change({}, 0.0, need_of_run(found, world_size))
    answer = {"memory_bytes": available, "fits": True, "largest": family_keys(found), "parameters": parameters}
    return answer | _mark(found, change, world_size, measured)


def _mark(run: "RunConfig", change: "Change", world_size: int, measured: "list[Measured]") -> dict[str, Any]:
    from parallax.config.layout import resolve_layout
    from parallax.train.planning.advice import with_settings
    from parallax.train.planning.measured import mark_of

    changed = with_settings(run, change.settings)
    layout = resolve_layout(changed.parallel, changed.model.num_tracks, world_size)
    confirmed, mark = mark_of(measured, changed, layout, change.need.tensor_bytes)
    return {"measured_on_gpu": confirmed, "mark": mark}


def print_found(report: dict[str, Any]) -> None:
    """What was found, on stdout."""
    memory = mib(report["memory_bytes"])
    if "largest" in report:
        print(f"largest of the family in {memory} MiB: {report['parameters']:,} parameters")
        print(report["mark"])
        print(report["largest"])
    elif "best" in report:
        _print_best(report, memory)
    else:
        _print_fit(report, memory)


def _print_fit(report: dict[str, Any], memory: str) -> None:
    from parallax.train.planning.fit import ASSUMED

    rows = [
        [kind + (" (assumed)" if kind in ASSUMED else ""), mib(size)] for kind, size in report["parts"].items()
    ]
    print_table("\nneeded at the peak", ["", "MiB"], [*rows, ["sum", mib(report["need_bytes"])]])
    mark = f"; {report['mark']}" if report["mark"] else ""
    if report["fits"]:
        print(f"\nfits: {mib(report['need_bytes'])} of {memory} MiB{mark}")
        return
    print(f"\ndoes not fit: {mib(report['need_bytes'])} of {memory} MiB{mark}")
    change = report["change"]
    if change is None:
        print("no change that was tried makes it fit; more ranks or a smaller model are left")
        return
    print(f"cheapest change that was tried and fits ({mib(change['need_bytes'])} MiB): {change['keys']}")


def _print_best(report: dict[str, Any], memory: str) -> None:
    print(f"{report['planned']} of {report['candidates']} layouts planned; {memory} MiB a rank")
    print(f"seconds are estimates: {report['rate']}; {report['bandwidth']}; nothing overlaps")
    if not report["best"]:
        print("none that was planned fits; parallax plan without --search names a change")
        return
    rows = [
        [
            *(str(change["settings"][f"parallel.{name}"]) for name in ("track", "dp_shard", "dp_replicate")),
            str(change["settings"]["parallel.order"]).removeprefix("track_"),
            str(change["settings"]["train.micro_batch"]),
            "yes" if change["settings"]["train.activation_checkpointing"] else "no",
            f"{change['estimated_seconds']:.3g}",
            mib(change["need_bytes"]),
        ]
        for change in report["best"]
    ]
    columns = ["track", "shard", "replicate", "order", "micro", "recompute", "est. s", "MiB"]
    print_table("", columns, rows)
    print(f"\n{report['best'][0]['keys']}")
    print(report["best"][0]["mark"])


def _change(change: "Change") -> dict[str, Any]:
    return {
        "keys": change.line,
        "settings": change.settings,
        "estimated_seconds": change.seconds,
        "need_bytes": change.need.total_bytes,
    }
