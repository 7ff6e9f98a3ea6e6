"""A tracking server that does not know us: the run trains on, and its journal has everything."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finish, measured, start

from evaluation.tracking.refusing import refusing_server

Settings = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_wrong_credentials_cost_a_run_one_line_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with refusing_server(401, "You are not authenticated.") as uri:
        assert finish(start(settings({"tracking.mlflow": True, "tracking.uri": uri}), log)) == 0
    assert [record["step"] for record in measured(tmp_path / "run")] == list(range(1, 13))
    said = " ".join(log.read_text().split())
    assert said.count("refused with 401") == 1
    assert "MLFLOW_TRACKING_USERNAME" in said
    assert f"track sync {tmp_path / 'run'}` sends what is missing" in said
    assert "Traceback" not in said
