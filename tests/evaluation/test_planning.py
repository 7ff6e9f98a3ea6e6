"""`evaluation.planning`: a reduced set of its comparisons."""

import pytest

from evaluation.planning.cases import CASES, FRESH, HELD_OUT
from evaluation.planning.compare import compare_peak


@pytest.mark.parametrize("name", ["two passes", "checkpointing"])
def test_a_run_in_another_process_holds_what_was_planned(name: str) -> None:
    compared = compare_peak(next(case for case in CASES if case.name == name))
    assert compared.holds, compared


def test_at_least_twelve_configurations_four_of_them_held_out() -> None:
    assert len(CASES) >= 12
    assert len(HELD_OUT) == 4
    assert {case.name for case in CASES + FRESH} >= HELD_OUT
