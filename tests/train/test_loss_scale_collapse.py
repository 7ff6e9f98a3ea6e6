"""fp16 whose gradients are NaN whatever the scale would skip every step for ever."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parallax.errors import NonFiniteError
from parallax.train.guard import FiniteGuard
from parallax.train.session import Session


def session(loss_scale: float, scales_loss: bool = True) -> Any:
    return SimpleNamespace(
        guard=FiniteGuard(torch.device("cpu")),
        engine=SimpleNamespace(scales_loss=scales_loss, loss_scale=loss_scale),
        progress=SimpleNamespace(step=41),
        last_checkpoint=lambda: None,
    )


def test_a_loss_scale_that_has_collapsed_ends_the_run_at_its_step() -> None:
    with pytest.raises(NonFiniteError, match="step 41"):
        Session.check_finite(session(2.0**-20))


@pytest.mark.parametrize(("loss_scale", "scales_loss"), [(65536.0, True), (1.0, True), (0.0, False)])
def test_a_sound_scale_or_none_does_not(loss_scale: float, scales_loss: bool) -> None:
    assert Session.check_finite(session(loss_scale, scales_loss)) is None
