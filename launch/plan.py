from dataclasses import dataclass

from launch.place import Place
from launch.request import Launcher, Request
from parallax.config.batch import accumulation_on_ranks
from parallax.config.layout import Layout, resolve_layout
from parallax.config.run import RunConfig
from parallax.config.strategy import PLANNED_RANKS, settle_strategy
from parallax.errors import ConfigError


@dataclass(frozen=True)
class RankPlace:
    """Where one rank runs, and its numbers along the axes."""

    rank: int
    node: int
    dp: int
    """Which block of rows of the global batch it reads."""
    track: int
    """Which share of the tracks it computes."""


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before a process starts; the same for every launcher but for the command."""

    launcher: str
    place: Place
    config: RunConfig
    """With engine and shards settled."""
    layout: Layout
    accumulation: int
    """Micro-batches of a rank in a step."""
    environment: dict[str, str]
    """Variables added to those inherited."""
    argv: tuple[str, ...]
    """The command of this node."""

    @property
    def ranks(self) -> list[RankPlace]:
        """The map from ranks to nodes and axes, in the order of the ranks."""
        return [self._rank(number) for number in range(self.layout.world_size)]

    def _rank(self, rank: int) -> RankPlace:
        layout = self.layout
        dp, track = rank // layout.track, rank % layout.track
        if layout.track_across:
            track, dp = rank // layout.dp, rank % layout.dp
        return RankPlace(rank, rank // self.place.processes_per_node, dp, track)


def make_plan(name: str, launcher: Launcher, request: Request) -> Plan:
    """Settles the strategy, arranges the ranks, and writes the command.

    Raises:
        ParallaxError: the request contradicts itself or the run configuration.
    """
    world_size = request.place.world_size
    config = settle_strategy(
        request.config,
        launcher.statements(request),
        world_size,
        suggested_engine=launcher.suggested_engine,
    )
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    try:
        accumulation = accumulation_on_ranks(config.train.global_batch, config.train.micro_batch, layout.dp)
    except ValueError as error:
        raise ConfigError(f"train: {error}") from None
    environment = {PLANNED_RANKS: str(world_size)}
    if request.place.processes_per_node > 1 and "OMP_NUM_THREADS" not in request.environment:
        # Otherwise every process starts as many threads as there are processors.
        environment["OMP_NUM_THREADS"] = "1"
    if config.parallel.engine == "deepspeed" and request.on_cpu:
        # DeepSpeed looks for the kind of device by importing one library after the other, unless it is told.
        environment["DS_ACCELERATOR"] = "cpu"
    environment |= launcher.variables(request)
    return Plan(name, request.place, config, layout, accumulation, environment, launcher.command(request))
