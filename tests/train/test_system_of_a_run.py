"""What a run writes down of the machines it runs on, and what MLflow has of it."""

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finish, start, train_here

from parallax.train.system import name_nodes

Settings = Callable[..., dict[str, Any]]
SHARED = {"tracking.system_interval": 0.1, "parallel.track": 2, "train.max_steps": 60}


def samples_of(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of each node's file, by its name."""
    files = sorted((run / "system").glob("*.jsonl"))
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in files}


def mlflow_run(store: str, run: Path) -> tuple[Any, Callable[[str], list[int]]]:
    """The run as MLflow has it, and the steps of a metric there."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    run_id = json.loads((run / "mlflow_run.json").read_text())["run_id"]
    return client.get_run(run_id), lambda key: [m.step for m in client.get_metric_history(run_id, key)]


def test_nodes_are_named_by_their_hosts_and_numbered_where_these_share_a_name() -> None:
    assert name_nodes(["gpu17.cluster.example", "gpu18"]) == ("gpu17", "gpu18")
    assert name_nodes(["box", "gpu1", "box.b"]) == ("box-0", "gpu1", "box-1")


def test_sampling_can_be_switched_off(settings: Settings, tmp_path: Path) -> None:
    train_here(settings({"tracking.system_interval": 0.0, "train.max_steps": 2}))
    assert not (tmp_path / "run" / "system").exists()


@pytest.mark.slow
def test_a_run_writes_samples_that_mlflow_has_once_after_the_run_and_two_syncs(
    settings: Settings, tmp_path: Path
) -> None:
    from parallax.train.sync import sync_run

    store = f"sqlite:///{tmp_path}/mlflow.db"
    tracked = {"tracking.mlflow": True, "tracking.uri": store, "tracking.system_interval": 0.1}
    assert finish(start(settings({**tracked, "train.max_steps": 40}), tmp_path / "log.txt")) == 0
    run = tmp_path / "run"
    [(node, samples)] = samples_of(run).items()
    numbers = list(range(len(samples)))
    assert [sample["step"] for sample in samples] == numbers != []

    name = f"system/{node}/cpu_utilization_percentage"
    told, steps_of = mlflow_run(store, run)
    assert steps_of(name) == numbers
    measured = {key for key in samples[0] if key not in ("step", "time")}
    assert {key.rpartition("/")[2] for key in told.data.metrics if key.startswith(f"system/{node}/")} == measured
    for _ in range(2):
        assert sync_run(run, warn=pytest.fail).system_samples == len(samples)
        assert steps_of(name) == numbers

    tags = told.data.tags
    assert {key: tags[key] for key in tags if key.startswith("layout.")} == {
        "layout.world_size": "1",
        "layout.track": "1",
        "layout.dp_replicate": "1",
        "layout.dp_shard": "1",
        "layout.engine": "native",
    }
    assert tags["hardware.nodes"] == "1"
    assert tags.keys() >= {"hardware.cpu", "hardware.processors", "hardware.memory_gib"}


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def be_rank(rank: int, local_rank: int, port: int) -> None:
    """Makes this process one of two, each on a node of its own if `local_rank` is 0 for both."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(local_rank), **address}


@pytest.mark.slow
@pytest.mark.parametrize(("second", "num_nodes"), [(0, 2), (1, 1)])
def test_one_rank_of_every_node_samples_it(
    second: int, num_nodes: int, settings: Settings, tmp_path: Path, unused_port: int
) -> None:
    store, log = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "log.txt"
    run = settings({**SHARED, "tracking.mlflow": num_nodes == 2, "tracking.uri": store})
    local_ranks = (0, second)
    prepared = [partial(be_rank, rank, local, unused_port) for rank, local in enumerate(local_ranks)]
    processes = [start(run, log, prepare) for prepare in prepared]
    assert [finish(process) for process in processes] == [0, 0], log.read_text()

    samples = samples_of(tmp_path / "run")
    assert len(samples) == num_nodes
    for lines in samples.values():
        assert [line["step"] for line in lines] == list(range(len(lines))) != []
    if num_nodes == 2:
        told, steps_of = mlflow_run(store, tmp_path / "run")
        first, other = samples
        assert (first.rpartition("-")[2], other.rpartition("-")[2]) == ("0", "1")
        assert all(steps_of(f"system/{node}/cpu_utilization_percentage") for node in samples)
        assert told.data.tags["hardware.nodes"] == "2"
        assert told.data.tags["layout.track"] == "2"
        assert told.data.tags["layout.world_size"] == "2"
