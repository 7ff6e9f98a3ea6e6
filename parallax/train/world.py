from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from parallax.config.batch import resolve_batch
from parallax.config.layout import resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError, ElsewhereError, ParallaxError
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.runtime.ranks import Ranks

Result = TypeVar("Result")
_PATIENCE = timedelta(minutes=10)


class World:
    """The ranks of a run, as the training loop sees them; one process is a world of its own.

    Everything here is collective: every rank calls it at the same place. It talks over a group of its own on
    the CPU, so that it never meets a collective of the training.

    Args:
        ranks: this process among all.
        mesh: the axes; None: one process.
        control: the group of all ranks, over gloo; None: one process.
    """

    def __init__(
        self, ranks: Ranks | None = None, mesh: Mesh | None = None, control: dist.ProcessGroup | None = None
    ) -> None:
        self.ranks = ranks or Ranks()
        self.mesh = mesh
        self._control = control

    @property
    def is_first(self) -> bool:
        """Whether this rank speaks for all: it writes journal, screen, trackers and checkpoints."""
        return self.ranks.rank == 0

    @property
    def dp(self) -> tuple[int, int]:
        """(number, count) of this rank among those that read different samples."""
        return (self.mesh.dp_rank, self.mesh.layout.dp) if self.mesh else (0, 1)

    def on_first(self, action: Callable[[], Result]) -> Result:
        """What the action returns on the first rank, on every rank; it runs nowhere else.

        Raises:
            ParallaxError: the action's, on the first rank.
            ElsewhereError: on the other ranks then.
        """
        if self._control is None:
            return action()
        answer: list[Any] = [None, None]
        raised: ParallaxError | None = None
        if self.is_first:
            try:
                answer[0] = action()
            except ParallaxError as error:
                raised, answer[1] = error, error.exit_code
        dist.broadcast_object_list(answer, src=0, group=self._control)
        if raised is not None:
            raise raised
        if answer[1] is not None:
            raise ElsewhereError(answer[1])
        return answer[0]

    def first_then_others(self, action: Callable[[], Result]) -> Result:
        """The action's own result on every rank; the first rank is done before the others begin.

        Raises:
            ParallaxError: the action's.
        """
        kept: list[Result] = []

        def run() -> None:
            kept.append(action())

        self.on_first(run)
        return kept[0] if kept else action()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank."""
        if self._control is None:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, group=self._control)
        return bool(votes)

    def gather(self, value: Any) -> list[Any]:
        """All ranks' values, by rank, on the first rank; empty elsewhere."""
        if self._control is None:
            return [value]
        values: list[Any] = [None] * self.ranks.world_size
        dist.gather_object(value, values if self.is_first else None, dst=0, group=self._control)
        return values if self.is_first else []


@contextmanager
def open_world(config: RunConfig, ranks: Ranks, device: torch.device) -> Iterator[World]:
    """Joins the other ranks and names the axes; they part again at the end.

    Raises:
        ConfigError: the ranks cannot be arranged as `parallel` says, or the batch cannot be shared among them.
    """
    layout = resolve_layout(config.parallel, config.model.num_tracks, ranks.world_size)
    _check_batch(config, layout.dp)
    if ranks.world_size == 1:
        yield World()
        return
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    try:
        yield World(ranks, build_mesh(layout, device), dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()


def _check_batch(config: RunConfig, dp: int) -> None:
    try:
        resolve_batch(
            config.train.global_batch, min(config.train.micro_batch, max(config.train.global_batch // dp, 1)), dp
        )
    except ValueError as error:
        raise ConfigError(f"train: {error}") from None
