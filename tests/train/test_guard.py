"""The memory for the first step that was not finite."""

import math

import pytest
import torch

from parallax.errors import NonFiniteError
from parallax.train.guard import FiniteGuard

GOOD = torch.tensor(1.0)


def guard_after(*values: float) -> FiniteGuard:
    """Steps 1, 2, 3 … with these losses."""
    guard = FiniteGuard(torch.device("cpu"))
    for step, value in enumerate(values, start=1):
        guard.watch(step, torch.tensor(value), GOOD)
    return guard


def test_finite_steps_pass_and_the_checkpoint_is_not_even_looked_for() -> None:
    guard_after(1.0, -3e38, 0.0).check(lambda: pytest.fail("asked for the checkpoint"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_step_is_named_even_if_good_ones_follow(bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"^step 2: .*the last good checkpoint is runs/x/step-1;.*optim\.lr"):
        guard_after(1.0, bad, 1.0, bad).check(lambda: "runs/x/step-1")


def test_it_says_so_when_nothing_was_saved() -> None:
    with pytest.raises(NonFiniteError, match="none was saved before"):
        guard_after(math.nan).check(lambda: None)


def test_every_watched_value_counts() -> None:
    guard = FiniteGuard(torch.device("cpu"))
    guard.watch(5, GOOD, torch.tensor(math.inf))
    with pytest.raises(NonFiniteError, match="step 5"):
        guard.check(lambda: None)


def test_a_single_element_of_the_weights_is_enough() -> None:
    guard = FiniteGuard(torch.device("cpu"))
    guard.watch_weights(1, [torch.full((3, 3), 3e38), torch.ones(2)])
    guard.check(lambda: None)
    guard.watch_weights(2, [torch.ones(3, 3), torch.tensor([1.0, math.inf])])
    with pytest.raises(NonFiniteError, match="step 2"):
        guard.check(lambda: None)
