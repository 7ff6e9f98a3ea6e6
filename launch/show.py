import shlex
from collections.abc import Sequence

from launch.plan import Plan, RankPlace

_COLUMNS = 80
_MOST_RANKS = 16


def describe_plan(plan: Plan, *, dry_run: bool) -> list[str]:
    """The plan for a person, in lines of at most 80 columns where names allow."""
    place = plan.place
    processes = "process" if place.world_size == 1 else "processes"
    where, here = " on one node", ""
    if place.nodes > 1:
        where, here = f" on {place.nodes} nodes", f"; this is node {place.node_rank}"
    lines = [f"plan     {place.world_size} {processes}{where}, started with {plan.launcher}{here}"]
    lines += describe_parts(plan)
    if place.host:
        lines.append(f"meet     at {place.host}:{place.port}, on node 0")
    lines += [f"env      {name}={value}" for name, value in plan.environment.items()]
    lines += _wrapped("command  ", plan.argv)
    return [*lines, *_describe_next(plan, dry_run)]


def describe_parts(plan: Plan) -> list[str]:
    """Engine, mesh, batch and the map of the ranks."""
    layout, train = plan.layout, plan.config.train
    order = "neighbouring ranks share tracks" if not layout.track_across else "the track axis runs across nodes"
    return [
        f"engine   {_engine(plan)}",
        f"mesh     track {layout.track} x dp_replicate {layout.dp_replicate} x dp_shard {layout.dp_shard}"
        + (f"; {order}" if layout.track > 1 else ""),
        f"batch    {train.global_batch} windows a step; each of {layout.dp} data-parallel rank(s) "
        f"{plan.accumulation} x {train.global_batch // (layout.dp * plan.accumulation)}",
        *_describe_ranks(plan.ranks),
    ]


def _engine(plan: Plan) -> str:
    if plan.config.parallel.engine == "native":
        return "native (PyTorch)"
    section = plan.config.deepspeed
    offloaded = {"optimizer": section.offload_optimizer, "parameters": section.offload_parameters}
    names = [name for name, on in offloaded.items() if on]
    return f"deepspeed, ZeRO {section.zero_stage}" + (f", on the host: {', '.join(names)}" if names else "")


def _describe_ranks(ranks: Sequence[RankPlace]) -> list[str]:
    rows = [f"         {r.rank:>4}  {r.node:>4}  {r.dp:>4}  {r.track:>5}" for r in ranks]
    if len(rows) > _MOST_RANKS:
        half = _MOST_RANKS // 2
        rows = [*rows[:half], f"         … {len(rows) - _MOST_RANKS} more", *rows[-half:]]
    return ["ranks    rank  node    dp  track", *rows]


def _wrapped(label: str, words: Sequence[str]) -> list[str]:
    """A shell command broken into lines that can be copied."""
    lines, line = [], label
    for word in map(shlex.quote, words):
        if len(line) + len(word) + 3 > _COLUMNS and line.strip() and line != label:
            lines.append(line + " \\")
            line = " " * len(label) + "  " + word
        else:
            line += word if line == label else f" {word}"
    return [*lines, line]


def _describe_next(plan: Plan, dry_run: bool) -> list[str]:
    others = [str(node) for node in range(plan.place.nodes) if node != plan.place.node_rank]
    lines = []
    if others:
        names = ", ".join(others) if len(others) <= 8 else f"{others[0]} … {others[-1]}"
        lines.append(f"nodes    the same command on node {names}, with its own --node-rank")
    if dry_run:
        return [*lines, "next     nothing was started; the same without --dry-run starts it"]
    return [*lines, "next     starts now; Ctrl-C saves and stops, the same command goes on"]
