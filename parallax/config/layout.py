from dataclasses import dataclass

from parallax.config.parallel import ParallelConfig
from parallax.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """The size of every axis that a run's ranks are arranged along."""

    track: int
    dp_replicate: int
    dp_shard: int
    track_across: bool = False
    """Whether the track axis is the outermost, across nodes, instead of the innermost."""

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.track * self.dp

    @property
    def dp(self) -> int:
        """Ranks along the data-parallel axes, each of which reads samples of its own."""
        return self.dp_replicate * self.dp_shard


def resolve_layout(config: ParallelConfig, num_tracks: int, world_size: int) -> Layout:
    """The layout of `world_size` ranks that the configuration asks for; no process needs to run for it.

    Raises:
        ConfigError: the sizes do not multiply to the world size, or the ranks cannot share the tracks equally;
            the message names the nearest that do.
    """
    if num_tracks % config.track:
        raise ConfigError(
            f"parallel.track={config.track} does not divide model.num_tracks={num_tracks}; "
            f"nearest that does: {_nearest(_divisors(num_tracks), config.track)}"
        )
    dp_shard = config.dp_shard or 1
    inner = config.track * dp_shard
    replicate = config.dp_replicate or max(world_size // inner, 1)
    if inner * replicate != world_size:
        shards = _nearest_shards(config, num_tracks, world_size)
        ranks = inner * (config.dp_replicate or max(round(world_size / inner), 1))
        raise ConfigError(
            f"parallel.track={config.track} x dp_shard={dp_shard} x dp_replicate={replicate} is "
            f"{inner * replicate}, and the run has {world_size} ranks; nearest: {shards}, or start "
            f"{ranks} ranks"
        )
    return Layout(config.track, replicate, dp_shard, config.order == "track_across")


def _nearest_shards(config: ParallelConfig, num_tracks: int, world_size: int) -> str:
    """The possible sizes on that many ranks nearest to those asked for, tracks first."""
    tracks = [d for d in _divisors(num_tracks) if world_size % d == 0]
    track = _nearest(tracks, config.track)
    shard = _nearest(_divisors(world_size // track), config.dp_shard or 1)
    return f"track={track} dp_shard={shard} dp_replicate={world_size // (track * shard)}"


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _nearest(numbers: list[int], wanted: int) -> int:
    return min(numbers, key=lambda number: (abs(number - wanted), number))
