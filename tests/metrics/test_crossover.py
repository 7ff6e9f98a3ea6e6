"""The closed form of what layouts send, against the figures of the design notes and against DDP."""

from typing import Literal

import pytest

from parallax.config.layout import Layout
from parallax.config.load import load_config
from parallax.metrics.traffic import crossover_tokens, step_bytes

MODEL = load_config("configs/reference.yaml").model
PAIR, COPIES = Layout(2, 1, 1), Layout(1, 2, 1)


@pytest.mark.parametrize(("shared", "tokens"), [("vocab_split", 21_900), ("copy_reduce", 32_900)])
def test_crossover_of_the_reference_shape(shared: Literal["vocab_split", "copy_reduce"], tokens: int) -> None:
    tracks, ddp = step_bytes(MODEL, PAIR, shared), step_bytes(MODEL, COPIES, shared)
    found = crossover_tokens(tracks, ddp)
    assert found == pytest.approx(tokens, rel=0.005)
    assert tracks.of(found - 1) < ddp.of(found - 1)
    assert tracks.of(found + 1) > ddp.of(found + 1)


def test_ddp_sends_its_parameters_twice_over_many_ranks() -> None:
    assert step_bytes(MODEL, Layout(1, 1024, 1), "vocab_split").fixed == pytest.approx(8 * 67_377_664, rel=0.002)
