"""A row passes only where what was found fits what was expected."""

import math

import pytest

from evaluation.gpu_proof.rows import Row, bounded, equal, failed, impossible, within


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (bounded("error", 1e-6, 1e-6), "pass"),
        (bounded("error", 1.1e-6, 1e-6), "fail"),
        (bounded("error", math.nan, 1e-6), "fail"),
        (bounded("error", math.inf, 1e-6), "fail"),
        (within("share", 0.5, 0.5, 1.0), "pass"),
        (within("share", 1.01, 0.5, 1.0), "fail"),
        (within("share", math.nan, 0.5, 1.0), "fail"),
        (equal("count", 3, 3), "pass"),
        (equal("count", 3, 4), "fail"),
        (failed("whole", "it broke"), "fail"),
        (impossible("whole", "no GPU"), "not possible here"),
        (Row("speed", "3 tokens/s"), "measured"),
    ],
)
def test_the_verdict_follows_from_what_was_found(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_a_row_survives_as_plain_values() -> None:
    row = bounded("error", 1e-3, 1e-6, "a remark")
    assert Row.from_dict(row.to_dict()) == row
    assert (row.found, row.expected) == ("1.0e-03", "<= 1e-06")
