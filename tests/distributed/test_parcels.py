"""What two ranks exchange is cut into parcels, none of which is lost, and each of which the formula counts."""

from collections.abc import Callable
from unittest.mock import patch

import pytest
from cases import LAYOUTS
from parity import Case, Outcome, compare, train_two_steps
from worker_pool import WorkerPool

from parallax.parallel import collectives
from parallax.parallel.traffic import Kind

SWAPS = 2
STATES = 8 * 6 * 8 * 8
"""Bytes of (B, T, D) in float64."""


def train_with_parcels_of(num_bytes: int, case: Case) -> Outcome:
    with patch.object(collectives, "_PARCEL_BYTES", num_bytes):
        return train_two_steps(case)


@pytest.mark.parametrize("num_bytes", [1000, STATES - 8])
def test_parcels_change_no_number(num_bytes: int, pool_of: Callable[[int], WorkerPool]) -> None:
    case = Case(LAYOUTS["track2"], "vocab_split", num_loops=SWAPS + 1)
    outcomes = pool_of(2).run(train_with_parcels_of, num_bytes, case)
    found = compare(case, outcomes)
    assert max(found.loss, found.gradient, found.norm, found.weights) < 1e-10, found
    assert found.ledger == 0
    calls = {traffic.calls for key, traffic in outcomes[0].recorded[1].items() if key.kind == Kind.ALL_TO_ALL}
    assert calls == {SWAPS * -(-STATES // num_bytes)}
