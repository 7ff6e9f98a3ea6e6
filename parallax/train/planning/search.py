from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parallax.config.layout import Layout, resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.metrics.flops import parameter_counts
from parallax.metrics.traffic import local_parameters
from parallax.train.planning.advice import Change, need_of_run, with_settings
from parallax.train.planning.fit import beside_tensors
from parallax.train.planning.step_time import Machine, estimate_seconds

BEST = 5
"""Layouts shown."""
MOST_PLANNED = 24
"""Layouts planned in full, the fastest first."""
_STATE_BYTES = 16
"""fp32 weight, gradient and two moments of a parameter: a rank whose share is larger cannot fit."""


@dataclass(frozen=True)
class Found:
    """What a search has come to."""

    best: list[Change]
    """Those that fit, the fastest by estimate first."""
    candidates: int
    """All that divide the ranks and the batch."""
    planned: int
    """How many were planned in full."""


def search_layouts(config: RunConfig, memory_bytes: int, *, world_size: int, machine: Machine) -> Found:
    """The layouts with the least estimated time whose first rank fits, each planned in full.

    Tried are track x dp_shard x dp_replicate x order x micro-batch x activation checkpointing.
    """
    ranked: list[tuple[float, int, dict[str, Any], RunConfig]] = []
    for settings in _candidates(config, world_size, machine):
        changed = with_settings(config, settings)
        layout = resolve_layout(changed.parallel, changed.model.num_tracks, world_size)
        ranked.append((estimate_seconds(changed, layout, machine), len(ranked), settings, changed))
    ranked.sort(key=lambda entry: entry[:2])
    best: list[Change] = []
    planned = 0
    for seconds, _, settings, changed in ranked:
        if len(best) == BEST or planned == MOST_PLANNED:
            break
        if _least_bytes(changed, world_size) > memory_bytes:
            continue
        planned += 1
        need = need_of_run(changed, world_size)
        if need.fits(memory_bytes):
            best.append(Change(settings, seconds, need))
    return Found(best, len(ranked), planned)


def _candidates(config: RunConfig, world_size: int, machine: Machine) -> Iterator[dict[str, Any]]:
    for layout in _layouts(config.model.num_tracks, world_size, machine.ranks_per_node):
        batch, rest = divmod(config.train.global_batch, layout.dp)
        if rest:
            continue
        for micro_batch in (size for size in range(1, batch + 1) if batch % size == 0):
            for recompute in (False, True):
                yield {
                    "parallel.track": layout.track,
                    "parallel.dp_shard": layout.dp_shard,
                    "parallel.dp_replicate": layout.dp_replicate,
                    "parallel.order": "track_across" if layout.track_across else "track_inside",
                    "train.micro_batch": micro_batch,
                    "train.activation_checkpointing": recompute,
                }


def _layouts(num_tracks: int, world_size: int, ranks_per_node: int) -> Iterator[Layout]:
    for track in range(1, num_tracks + 1):
        if num_tracks % track or world_size % track:
            continue
        dp = world_size // track
        # The order matters only where both axes are there and there is more than one node.
        orders = (False, True) if track > 1 and dp > 1 and world_size > ranks_per_node else (False,)
        for shard in range(1, dp + 1):
            if dp % shard == 0:
                for across in orders:
                    yield Layout(track, dp // shard, shard, across)


def _least_bytes(config: RunConfig, world_size: int) -> int:
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    held = local_parameters(config.model, layout.track, splits=config.parallel.shared != "copy_reduce")
    beside = beside_tensors(world_size, on_gpu=config.runtime.device != "cpu")
    return _STATE_BYTES * held // layout.dp_shard + sum(beside.values())


def scaled(config: RunConfig, num_heads: int) -> RunConfig:
    """The model of the same family with another number of heads.

    Width of a head, heads a key-value head, the ratio of the feed-forward's width and of the layers to the
    width, tracks, passes, vocabulary and context stay.
    """
    model = config.model
    ratio = num_heads / model.num_heads
    layers_a_level = model.num_layers // model.layers_per_track
    sizes = {
        "num_heads": num_heads,
        "num_kv_heads": num_heads * model.num_kv_heads // model.num_heads,
        "hidden_size": round(model.hidden_size * ratio),
        "intermediate_size": round(model.intermediate_size * ratio),
        "num_layers": layers_a_level * max(1, round(model.layers_per_track * ratio)),
    }
    own = {name: size for name, size in sizes.items() if name in type(model).model_fields}
    return config.model_copy(update={"model": model.model_copy(update=own)})


def family_keys(config: RunConfig) -> str:
    """The keys that make the model what it is in its family."""
    names = ("num_layers", "num_heads", "num_kv_heads", "hidden_size", "intermediate_size")
    own = [name for name in names if name in type(config.model).model_fields]
    return " ".join(f"model.{name}={getattr(config.model, name)}" for name in own)


def largest_that_fits(config: RunConfig, memory_bytes: int, *, world_size: int) -> tuple[RunConfig, int]:
    """The model of the configuration's family with the most heads that fits, and its parameters.

    Raises:
        ConfigError: not even the smallest fits.
    """
    step = config.model.num_heads // config.model.num_kv_heads

    def fits(number: int) -> bool:
        tried = scaled(config, number * step)
        if _least_bytes(tried, world_size) > memory_bytes:
            return False
        return need_of_run(tried, world_size).fits(memory_bytes)

    low, high = 0, max(1, config.model.num_heads // step)
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    if low == 0:
        raise ConfigError(f"--largest: not even {family_keys(scaled(config, step))} fits; raise --memory")
    found = scaled(config, low * step)
    return found, parameter_counts(found.model).total
