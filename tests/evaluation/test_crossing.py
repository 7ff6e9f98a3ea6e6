"""Where DDP overtakes the tracks, from straight lines."""

import pytest

from evaluation.scaling.crossing import StepModel, crossing


def test_the_crossing_lies_between_the_points_where_the_order_changes():
    assert crossing([1, 2, 3], [0.0, 1.0, 4.0], [2.0, 2.0, 2.0]) == pytest.approx(2 + 1 / 3)


def test_curves_that_never_cross_have_no_crossing():
    assert crossing([1, 2, 3], [0.0, 0.1, 0.2], [5.0, 5.0, 5.0]) is None


def test_a_curve_that_comes_to_lie_below_has_no_crossing():
    assert crossing([1, 2], [2.0, 0.0], [1.0, 1.0]) is None


def test_several_crossings_by_noise_are_settled_by_straight_lines():
    found = crossing([1, 2, 3, 4, 5], [0.0, 1.05, 1.95, 3.0, 4.0], [1.0, 1.0, 2.0, 2.0, 2.0])
    assert found is not None
    assert 2 < found < 4


def test_without_compute_the_crossing_of_steps_is_that_of_bytes():
    tracks = StepModel([1, 2], [0.0, 0.0], fixed_bytes=0, bytes_per_token=100)
    ddp = StepModel([1, 2], [0.0, 0.0], fixed_bytes=5000, bytes_per_token=0)
    for megabits in (1, 1000):
        assert tracks.crossing(ddp, megabits) == pytest.approx(50)


def test_dearer_compute_of_ddp_moves_the_crossing_up_until_there_is_none():
    tracks = StepModel([0, 1000], [0.0, 1.0], fixed_bytes=0, bytes_per_token=125)
    ddp = StepModel([0, 1000], [0.0, 1.5], fixed_bytes=250_000, bytes_per_token=0)
    assert tracks.crossing(ddp, 1.0) == pytest.approx(2 / (1e-3 - 0.5e-3))
    assert tracks.crossing(ddp, 10.0) is None


def test_a_step_takes_its_compute_and_its_bytes_over_the_bandwidth():
    model = StepModel([100, 300], [1.0, 2.0], fixed_bytes=1e6, bytes_per_token=1e3)
    assert model.seconds(200, 8.0) == pytest.approx(1.5 + 1.2)


@pytest.mark.parametrize("seconds", [[0.3, 0.1], [0.1, 0.9]])
def test_noise_in_the_steps_never_predicts_less_than_no_time(seconds: list[float]):
    model = StepModel([100, 300], seconds, fixed_bytes=0, bytes_per_token=1)
    times = [model.seconds(tokens, 1e9) for tokens in (1, 100, 300, 100_000)]
    assert times == sorted(times)
    assert times[0] > 0
