"""What arrives at an MLflow server that is killed three times during a run."""

import os
from pathlib import Path

import pytest

from evaluation.tracking.arrived import compare_points
from evaluation.tracking.server import Server, Store, why_no_postgres
from evaluation.tracking.training import Setting
from evaluation.tracking.trial import disturb

LINES = [{"step": 1, "time": 5.0, "loss": 2.0, "lr": 0.1}, {"step": 2, "time": 6.0, "loss": 1.5, "lr": 0.1}]
ALL = {"loss": [(1, 2.0), (2, 1.5)], "lr": [(1, 0.1), (2, 0.1)]}


@pytest.mark.parametrize(
    ("held", "counts"),
    [
        (ALL, (0, 0, 0)),
        (ALL | {"lr": [(1, 0.1)]}, (1, 0, 0)),
        ({"loss": [(1, 2.0), (2, 1.5)]}, (2, 0, 0)),
        (ALL | {"loss": [(1, 2.0), (2, 1.5), (2, 1.5)]}, (0, 1, 0)),
        (ALL | {"loss": [(1, 2.0), (2, 7.0)]}, (1, 0, 1)),
        (ALL | {"other": [(1, 2.0)]}, (0, 0, 1)),
    ],
)
def test_points_are_counted_that_are_missing_doubled_or_foreign(
    held: dict[str, list[tuple[int, float]]], counts: tuple[int, int, int]
) -> None:
    arrived = compare_points(LINES, held)
    assert (arrived.points, (arrived.missing, arrived.doubled, arrived.foreign)) == (4, counts)
    assert arrived.is_exact == (counts == (0, 0, 0))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_server_killed_three_times_has_every_step_once_after_a_sync(store: Store, tmp_path: Path) -> None:
    reason = why_no_postgres() if store == "postgresql" else None
    if reason is not None:
        if os.environ.get("PARALLAX_REQUIRE_POSTGRES") == "1":
            pytest.fail(f"PARALLAX_REQUIRE_POSTGRES=1, and {reason}")
        pytest.skip(reason)
    setting = Setting(tmp_path, hidden_size=32, outage_steps=50)
    setting.write()
    with Server(store) as server:
        found = disturb(setting, server, "run")
    assert found.arrived.is_exact, found.arrived
    assert found.arrived.points > 1500
    assert found.arrived_before_sync.missing > 0, "the last outage was one"
    assert min(found.missed_lines) >= 50
    assert found.status == "KILLED"
    assert "trying again while the run goes on" in found.log
    assert "Traceback" not in found.log
