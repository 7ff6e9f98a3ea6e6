"""What is told of code, data, hardware and layout when no tracker was there during the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import train_here

from parallax.errors import RunError
from parallax.train.run_folder import RunFolder

Settings = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_a_run_that_mlflow_first_hears_of_through_sync_has_its_tags(settings: Settings, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from parallax.train.sync import sync_run

    train_here(settings({"train.max_steps": 2}))
    store = f"sqlite:///{tmp_path}/mlflow.db"
    run_id = sync_run(tmp_path / "run", store).run_id
    tags = MlflowClient(store).get_run(run_id).data.tags
    assert tags.keys() >= {"git.commit", "data.fingerprint", "hardware.cpu", "hardware.memory_gib", "host"}
    assert (tags["layout.world_size"], tags["layout.track"], tags["hardware.nodes"]) == ("1", "1", "1")
    kept = json.loads((tmp_path / "run" / "tags.json").read_text())
    assert {key: tags[key] for key in kept} == kept


def test_a_run_without_tags_has_none_and_damaged_ones_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_tags() == {}
    for damaged in ("{", "[1]"):
        (tmp_path / "tags.json").write_text(damaged)
        with pytest.raises(RunError, match=r"tags\.json: expected a JSON object; delete it"):
            folder.read_tags()
