from typing import TYPE_CHECKING, Any

from parallax.cli.output import print_table
from parallax.cli.plan_report import mib

if TYPE_CHECKING:
    from parallax.config.run import RunConfig
    from parallax.train.advice import Change
    from parallax.train.plan import RankPlan
    from parallax.train.step_time import Machine

_ASSUMED = ("allocator slack", "CUDA context", "workspace", "NCCL")


def fit_report(run: "RunConfig", planned: "RankPlan", available: int, machine: "Machine") -> dict[str, Any]:
    """Whether a planned rank fits, and otherwise what makes it."""
    from parallax.train.advice import find_change
    from parallax.train.fit import need_of

    on_gpu = run.runtime.device != "cpu"
    need = need_of(planned, on_gpu=on_gpu)
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
        "measured_on_gpu": False if on_gpu else None,
        "change": _change(change) if change else None,
    }


def search_report(
    run: "RunConfig", available: int, world_size: int, machine: "Machine", *, stated: bool
) -> dict[str, Any]:
    """The fastest layouts that fit."""
    from parallax.train.search import search_layouts

    found = search_layouts(run, available, world_size=world_size, machine=machine)
    return {
        "memory_bytes": available,
        "fits": bool(found.best),
        "best": [_change(change) for change in found.best],
        "candidates": found.candidates,
        "planned": found.planned,
        "rate": f"{machine.flops / 1e12:g} TFLOP/s ({'stated' if stated else 'assumed, give --flops'}) "
        f"x {machine.utilisation:g}",
        "bandwidth": f"{machine.link_bandwidth / 1e9:g} GB/s a rank, "
        f"{machine.node_bandwidth * 8 / 1e9:g} Gbit/s a node",
    }


def largest_report(run: "RunConfig", available: int, world_size: int) -> dict[str, Any]:
    """The largest model of the run's family that fits."""
    from parallax.train.search import family_keys, largest_that_fits

    found, parameters = largest_that_fits(run, available, world_size=world_size)
    return {"memory_bytes": available, "fits": True, "largest": family_keys(found), "parameters": parameters}


def print_found(report: dict[str, Any]) -> None:
    """What was found, on stdout."""
    memory = mib(report["memory_bytes"])
    if "largest" in report:
        print(f"largest of the family in {memory} MiB: {report['parameters']:,} parameters")
        print("not measured on a GPU")
        print(report["largest"])
    elif "best" in report:
        _print_best(report, memory)
    else:
        _print_fit(report, memory)


def _print_fit(report: dict[str, Any], memory: str) -> None:
    rows = [
        [kind + (" (assumed)" if kind in _ASSUMED else ""), mib(size)] for kind, size in report["parts"].items()
    ]
    print_table("\nneeded at the peak", ["", "MiB"], [*rows, ["sum", mib(report["need_bytes"])]])
    mark = "; not measured on a GPU" if report["measured_on_gpu"] is False else ""
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
    print("not measured on a GPU")


def _change(change: "Change") -> dict[str, Any]:
    return {
        "keys": change.line,
        "settings": change.settings,
        "estimated_seconds": change.seconds,
        "need_bytes": change.need.total_bytes,
    }
