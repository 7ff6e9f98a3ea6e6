import signal
from typing import Any, cast

from parallax.runtime.stop import StopRequest
from parallax.train.world import World


def several_ranks() -> World:
    """A world of several ranks, as far as stopping is concerned; the others never have a signal."""
    world = World()
    world._control = cast(Any, object())
    return world


def test_a_signal_in_the_middle_of_a_step_ends_the_run_with_the_next() -> None:
    world, stop = several_ranks(), StopRequest()
    world.begin_step(1, stop)
    stop.signal = signal.SIGTERM
    assert not world.must_stop(stop)
    world.begin_step(2, stop)
    assert world.must_stop(stop)
    assert stop.exit_code == 128 + signal.SIGTERM


def test_a_signal_before_a_step_ends_the_run_after_it() -> None:
    world, stop = several_ranks(), StopRequest()
    stop.signal = signal.SIGUSR1
    world.begin_step(1, stop)
    assert world.must_stop(stop)
