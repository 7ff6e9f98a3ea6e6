from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from parallax.config.layout import Layout, resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.train.planning.fit import Need, need_of
from parallax.train.planning.rank_plan import RankPlan
from parallax.train.planning.rehearsal import plan_rank
from parallax.train.planning.step_time import Machine, estimate_seconds

MOST_TRIES = 24
"""Changes planned before it is given up; each takes a few seconds."""
_SMALLEST_CHUNK = 128


@dataclass(frozen=True)
class Change:
    """Settings that differ from those asked for, and what they do."""

    settings: dict[str, Any]
    seconds: float
    """Estimated for an optimizer step."""
    need: Need

    @property
    def line(self) -> str:
        """As it is added to a command."""
        return " ".join(f"{key}={str(value).lower()}" for key, value in self.settings.items())


def with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The configuration with some keys, such as `train.micro_batch`, changed."""
    for key, value in settings.items():
        section, name = key.split(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config


def need_of_run(config: RunConfig, world_size: int, rank: int = 0) -> Need:
    """What a rank of a run needs, planned anew."""
    planned: RankPlan = plan_rank(config, world_size=world_size, rank=rank)
    return need_of(planned, on_gpu=config.runtime.device != "cpu")


def find_change(
    config: RunConfig,
    memory_bytes: int,
    *,
    world_size: int,
    rank: int = 0,
    machine: Machine | None = None,
    plan: Callable[[RunConfig, int, int], Need] = need_of_run,
) -> Change | None:
    """The change that makes a rank fit and costs the least estimated time; None: none that was tried.

    Changes of one setting come before those of several. Each is planned in full. The global batch stays.
    """
    ranked: list[Any] = []
    for settings in _changes(config, world_size):
        changed = with_settings(config, settings)
        try:
            layout = resolve_layout(changed.parallel, changed.model.num_tracks, world_size)
        except ConfigError:
            continue
        if changed.train.global_batch % (changed.train.micro_batch * layout.dp):
            continue
        seconds = estimate_seconds(changed, layout, machine or Machine())
        ranked.append((len(settings) > 1, seconds, len(ranked), settings, changed))
    for _, seconds, _, settings, changed in _spread(sorted(ranked, key=lambda entry: entry[:3])):
        need = plan(changed, world_size, rank)
        if need.fits(memory_bytes):
            return Change(settings, seconds, need)
    return None


def _spread(ranked: list[Any]) -> list[Any]:
    """All changes of one setting, then of the others as many as there is time for, up to the most thorough."""
    single = [entry for entry in ranked if not entry[0]]
    several = ranked[len(single) :]
    room = max(MOST_TRIES - len(single), 1)
    if len(several) <= room:
        return ranked
    stride = (len(several) - 1) / max(room - 1, 1)
    return single + [several[round(number * stride)] for number in range(room)]


def _changes(config: RunConfig, world_size: int) -> Iterator[dict[str, Any]]:
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    options = [
        _settings("train.micro_batch", _smaller(config.train.micro_batch)),
        _settings("loss.chunk_tokens", _chunks(config)),
        _settings("train.activation_checkpointing", [] if config.train.activation_checkpointing else [True]),
        [{}, *_layouts(config, layout)],
    ]
    for chosen in product(*options):
        settings = {key: value for part in chosen for key, value in part.items()}
        if settings:
            yield settings


def _settings(key: str, values: list[Any]) -> list[dict[str, Any]]:
    return [{}, *({key: value} for value in values)]


def _smaller(number: int) -> list[int]:
    """Those that divide it, so that the global batch stays whole; the largest first."""
    return [size for size in range(number - 1, 0, -1) if number % size == 0]


def _chunks(config: RunConfig) -> list[int]:
    chunk = min(config.loss.chunk_tokens, config.train.micro_batch * config.model.max_seq_len)
    return [size for size in (chunk // 2, chunk // 4) if size >= _SMALLEST_CHUNK]


def _layouts(config: RunConfig, layout: Layout) -> Iterator[dict[str, Any]]:
    if config.parallel.engine == "deepspeed":
        if not config.deepspeed.offload_optimizer:
            yield {"deepspeed.offload_optimizer": True}
        return
    if config.parallel.dp_replicate is None:
        for shard in range(2 * layout.dp_shard, layout.dp + 1):
            if layout.dp % shard == 0:
                yield {"parallel.dp_shard": shard}
        for track in range(2 * layout.track, config.model.num_tracks + 1):
            if config.model.num_tracks % track == 0 and layout.world_size % (track * layout.dp_shard) == 0:
                yield {"parallel.track": track}
