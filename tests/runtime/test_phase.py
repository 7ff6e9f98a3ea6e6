"""Where a process says it is."""

import pytest

from parallax.runtime.phase import Whereabouts, note_step, phase, whereabouts


@pytest.fixture(autouse=True)
def _leave_as_found() -> None:
    note_step(0)


def test_the_innermost_phase_counts() -> None:
    before = whereabouts().phase
    note_step(3)
    with phase("validate"):
        assert whereabouts() == Whereabouts(3, "validate")
        with phase("forward"):
            assert whereabouts().phase == "forward"
        assert whereabouts().phase == "validate"
    assert whereabouts().phase == before


def test_an_error_leaves_the_name_of_the_phase_it_came_from() -> None:
    before = whereabouts().phase
    with phase(before):
        with pytest.raises(ArithmeticError), phase("backward"):
            raise ArithmeticError
        assert whereabouts().phase == "backward"
