import contextlib

import pytest

from parallax.metrics.throughput import ThroughputMeter


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(clock):
    return ThroughputMeter(clock)


def run_steps(clock, meter, count, seconds, tokens=100):
    for _ in range(count):
        clock.now += seconds
        meter.step(tokens)


def test_speed_is_that_of_the_interval_since_the_last_reading(clock, meter):
    run_steps(clock, meter, 4, seconds=0.5)
    first = meter.read()
    assert (first.tokens_per_second, first.step_seconds, first.seconds) == (200.0, 0.5, 2.0)
    run_steps(clock, meter, 2, seconds=2.0)
    second = meter.read()
    assert (second.tokens_per_second, second.step_seconds, second.seconds) == (50.0, 2.0, 6.0)


def test_a_pause_counts_neither_as_speed_nor_as_training_time(clock, meter):
    run_steps(clock, meter, 2, seconds=1.0)
    with meter.paused():
        clock.now += 1000
        assert meter.seconds == 2.0
        with meter.paused():
            clock.now += 1000
        clock.now += 1000
    run_steps(clock, meter, 2, seconds=1.0)
    measured = meter.read()
    assert (measured.tokens_per_second, measured.step_seconds, measured.seconds) == (100.0, 1.0, 4.0)


def test_a_pause_ends_when_its_block_fails(clock, meter):
    with contextlib.suppress(KeyError), meter.paused():
        clock.now += 50
        raise KeyError
    clock.now += 3
    assert meter.seconds == 3.0


def test_training_time_goes_on_over_a_restart_and_loading_does_not_count(clock, meter):
    run_steps(clock, meter, 3, seconds=1.0)
    state = meter.state_dict()
    clock.now += 10_000
    restarted = ThroughputMeter(clock)
    clock.now += 7
    restarted.load_state_dict(state)
    run_steps(clock, restarted, 2, seconds=1.0)
    measured = restarted.read()
    assert (measured.tokens_per_second, measured.step_seconds, measured.seconds) == (100.0, 1.0, 5.0)


def test_a_state_taken_inside_a_pause_holds_the_time_before_it(clock, meter):
    clock.now += 2
    with meter.paused():
        clock.now += 5
        assert meter.state_dict() == {"seconds": 2.0}


def test_reading_without_a_step_is_zero(meter):
    measured = meter.read()
    assert (measured.tokens_per_second, measured.step_seconds, measured.seconds) == (0.0, 0.0, 0.0)
