from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from parallax.config.batch import accumulation_on_ranks
from parallax.config.layout import resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError, ElsewhereError, ParallaxError
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.runtime.agreement import Agreement
from parallax.runtime.phase import note_step
from parallax.runtime.process_group import join, leave
from parallax.runtime.ranks import Ranks
from parallax.runtime.stop import StopRequest
from parallax.runtime.watchdog import LastWords, Watchdog

Result = TypeVar("Result")
_SLOWEST_SAVE = timedelta(minutes=30)


class World:
    """The ranks of a run, as the training loop sees them; one process is a world of its own.

    Its methods are collective: every rank calls them at the same place. They talk over a group of their own on
    the CPU, so that they never meet a collective of the training.
    """

    def __init__(self) -> None:
        self.ranks = Ranks()
        self.mesh: Mesh | None = None
        """The axes; None: one process."""
        self.saving: dist.ProcessGroup | None = None
        """All ranks, for checkpoints alone, which are written in a thread of their own; None: one process."""
        self.speak_last: LastWords = lambda _: None
        """Called when another rank is lost, before this process ends; it must not wait for anybody."""
        self._control: dist.ProcessGroup | None = None
        self._agreement = Agreement(None)

    def join(self, ranks: Ranks, mesh: Mesh, control: dist.ProcessGroup, saving: dist.ProcessGroup) -> None:
        """Makes this the world of several ranks."""
        self.ranks, self.mesh, self.saving = ranks, mesh, saving
        self._control, self._agreement = control, Agreement(control)

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

    def gather(self, value: Result) -> list[Result]:
        """Every rank's value, by rank, on every rank; any that pickle takes."""
        if self._control is None:
            return [value]
        values: list[Any] = [None] * self.ranks.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def begin_step(self, step: int, stop: StopRequest) -> None:
        """Tells the others, while the step computes, whether this rank is asked to stop."""
        note_step(step)
        self._agreement.begin(stop.signal)

    def must_stop(self, stop: StopRequest) -> bool:
        """At a step's end: whether all leave now. They do so after the same step, with the same signal."""
        agreed = self._agreement.finish().signal
        if self._control is None:
            return stop.signal is not None
        if agreed is not None:
            stop.signal = agreed
        # A signal that came since the step began is not agreed yet: it stays, to be told with the next step.
        return agreed is not None

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some rank."""
        if self._control is None:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, group=self._control)
        return bool(votes)


@contextmanager
def open_world(config: RunConfig, ranks: Ranks, device: torch.device) -> Iterator[World]:
    """Joins the other ranks, watches over them, and names the axes; they part again at the end.

    Raises:
        ConfigError: the ranks cannot be arranged as `parallel` says, or the batch cannot be shared among them.
        JoinError: the others cannot be reached.
    """
    layout = resolve_layout(config.parallel, config.model.num_tracks, ranks.world_size)
    _check_batch(config, layout.dp)
    joined = join(ranks, device)
    try:
        world = World()
        watchdog = Watchdog(
            joined.control,
            deadline_seconds=config.runtime.deadline_seconds,
            folder=Path(config.run.dir),
            last_words=lambda losses: world.speak_last(losses),
        )
        with watchdog:
            if joined.control is not None:
                saving = dist.new_group(backend="gloo", timeout=_SLOWEST_SAVE)
                world.join(ranks, build_mesh(layout, device), joined.control, saving)
            yield world
            if joined.control is not None:
                # A launcher ends all ranks once one has ended: the first may still be telling its trackers.
                dist.barrier(group=joined.control)
    finally:
        leave()


def _check_batch(config: RunConfig, dp: int) -> None:
    try:
        accumulation_on_ranks(config.train.global_batch, config.train.micro_batch, dp)
    except ValueError as error:
        raise ConfigError(f"train: {error}") from None
