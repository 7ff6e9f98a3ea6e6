"""The learning rate of step 1 .. N against formulas written out."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallax.config.sections import OptimConfig
from parallax.train.schedule import learning_rate, warmup_steps

SHAPES = ["cosine", "linear", "constant", "warmup_stable_decay"]
PEAK, FLOOR = 0.5, 0.1


def rates(total: int, schedule: str, **changes: Any) -> list[float]:
    config = OptimConfig(**{"lr": PEAK, "min_lr": FLOOR, "schedule": schedule, "warmup_steps": 10, **changes})
    return [learning_rate(step, total, config) for step in range(1, total + 1)]


@pytest.mark.parametrize("schedule", SHAPES)
def test_the_warm_up_rises_in_equal_steps_to_the_peak(schedule: str) -> None:
    assert rates(100, schedule)[:10] == pytest.approx([PEAK * step / 10 for step in range(1, 11)])


@pytest.mark.parametrize("schedule", SHAPES)
def test_without_a_warm_up_the_first_step_is_near_the_peak(schedule: str) -> None:
    assert rates(1000, schedule, warmup_steps=0)[0] == pytest.approx(PEAK, rel=0.01)


def test_cosine_falls_by_half_a_wave_to_the_floor() -> None:
    expected = [FLOOR + (PEAK - FLOOR) * (1 + math.cos(math.pi * (step - 10) / 90)) / 2 for step in range(11, 101)]
    assert rates(100, "cosine")[10:] == pytest.approx(expected)
    assert rates(100, "cosine")[-1] == pytest.approx(FLOOR)
    assert rates(100, "cosine")[54] == pytest.approx((PEAK + FLOOR) / 2)


def test_linear_falls_in_equal_steps_to_the_floor() -> None:
    expected = [PEAK - (PEAK - FLOOR) * (step - 10) / 90 for step in range(11, 101)]
    assert rates(100, "linear")[10:] == pytest.approx(expected)


def test_constant_stays_at_the_peak() -> None:
    assert rates(100, "constant")[9:] == [PEAK] * 91


def test_warmup_stable_decay_stays_and_falls_in_the_last_share_of_the_whole_run() -> None:
    found = rates(100, "warmup_stable_decay", decay_ratio=0.3)
    assert found[9:70] == pytest.approx([PEAK] * 61)
    assert found[70:] == pytest.approx([PEAK - (PEAK - FLOOR) * (step - 70) / 30 for step in range(71, 101)])


def test_a_decay_longer_than_what_the_warm_up_leaves_begins_at_its_end() -> None:
    found = rates(100, "warmup_stable_decay", decay_ratio=1.0)
    assert found == pytest.approx(rates(100, "linear"))


@given(
    schedule=st.sampled_from(SHAPES),
    total=st.integers(1, 300),
    warmup=st.integers(0, 350),
    decay_ratio=st.floats(0.01, 1.0),
)
def test_after_the_peak_the_rate_never_rises_and_never_leaves_its_bounds(
    schedule: str, total: int, warmup: int, decay_ratio: float
) -> None:
    found = rates(total, schedule, warmup_steps=warmup, decay_ratio=decay_ratio)
    rising, falling = found[:warmup], found[warmup:]
    assert all(0 < rate <= PEAK for rate in rising)
    assert rising == sorted(rising)
    assert all(FLOOR <= rate <= PEAK for rate in falling)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(falling))


@pytest.mark.parametrize(
    ("given_as", "steps"),
    [({"warmup_steps": 7}, 7), ({"warmup_ratio": 0.1}, 20), ({"warmup_ratio": 0.0}, 0), ({}, 4)],
)
def test_the_warm_up_is_given_in_steps_or_as_a_share_and_is_two_percent_otherwise(
    given_as: dict[str, Any], steps: int
) -> None:
    assert warmup_steps(200, OptimConfig(**given_as)) == steps


def test_the_floor_is_a_tenth_of_the_peak_unless_stated() -> None:
    assert learning_rate(50, 50, OptimConfig(lr=3e-3)) == pytest.approx(3e-4)
