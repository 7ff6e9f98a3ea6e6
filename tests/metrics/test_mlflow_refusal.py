"""A store that says no, takes no files, or is away at the run's end: one clear line with the way out."""

import errno
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from evaluation.tracking.refusing import refusing_server
from parallax.config.sections import TrackingConfig
from parallax.metrics.sinks.group import SinkGroup
from parallax.metrics.sinks.mlflow import MlflowSink
from parallax.metrics.sinks.protocol import TrackedRun
from parallax.metrics.sinks.refusal import explain, may_heal


@pytest.fixture
def run(tmp_path: Path) -> TrackedRun:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    return TrackedRun(name="tiny", directory=tmp_path, config={"seed": 0}, tags={})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store with its tables, which take seconds to make."""
    from parallax.metrics.sinks.mlflow_run import MlflowRun, prepare_mlflow

    prepare_mlflow()
    folder = tmp_path_factory.mktemp("store")
    MlflowRun(TrackedRun(name="first", directory=folder, config={}, tags={}), uri(folder), "refusals")
    return folder


def uri(store: Path) -> str:
    return f"sqlite:///{store}/mlflow.db"


def line(step: int) -> dict[str, float]:
    return {"step": step, "time": 1000.0 + step, "loss": step / 10}


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, "You are not authenticated.", "refused with 401 (You are not authenticated."),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', "refused with 403"),
        (401, '{"detail": "Unauthorized"}', "refused with 401"),  # a proxy's own words
    ],
)
def test_wrong_credentials_end_the_sink_with_one_line_that_names_the_variables(
    status: int, body: str, told: str, run: TrackedRun
) -> None:
    warnings: list[str] = []
    with refusing_server(status, body) as url:
        group = SinkGroup([MlflowSink(run, TrackingConfig(uri=url), warnings.append)], warnings.append)
        wait_until(lambda: group.log(line(1)) or not group.names)
        group.close("FINISHED")
    [warning] = warnings
    assert f"mlflow: {url}: {told}" in warning
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in warning
    assert f"`parallax track sync {run.directory}` sends what is missing" in warning


def test_a_host_name_that_the_server_does_not_expect_is_no_matter_of_credentials() -> None:
    from mlflow.exceptions import MlflowException, get_error_code

    words = "API request failed. Response body: 'Invalid Host header - possible DNS rebinding attack detected'"
    error = MlflowException(words, error_code=get_error_code(403))
    assert "--allowed-hosts" in explain(error)
    assert "PASSWORD" not in explain(error)
    assert not may_heal(error)
    assert may_heal(MlflowException("busy", error_code=get_error_code(503)))


def lines_and_files(store: Path, run: TrackedRun) -> tuple[list[int], list[str]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri(store))
    run_id = json.loads((run.directory / "mlflow_run.json").read_text())["run_id"]
    assert client.get_run(run_id).info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run_id, "loss")]
    return steps, sorted(item.path for item in client.list_artifacts(run_id))


def test_a_full_artifact_store_holds_up_no_lines_and_is_told_of(
    store: Path, run: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("parallax.metrics.sinks.mlflow._FIRST_PAUSE_SECONDS", 0.01)
    with monkeypatch.context() as filled:
        filled.setattr(MlflowClient, "log_artifact", full)
        warnings: list[str] = []
        sink = MlflowSink(run, TrackingConfig(uri=uri(store), experiment="refusals"), warnings.append)
        wait_until(lambda: sink.log(line(1)) or warnings)
        sink.log(line(2))
        sink.artifact(run.directory / "config.yaml")
        sink.close("FINISHED")
    steps, files = lines_and_files(store, run)
    assert (set(steps), files) == ({1, 2}, [])
    assert len(warnings) == 2, "once while the run goes on, once at its end"
    for warning in warnings:
        assert "takes lines but not files; is its artifact store full? (config.yaml: OSError" in warning
        assert f"`parallax track sync {run.directory}` sends them once there is room" in warning


@pytest.fixture
def full_disk(store: Path) -> Iterator[Path]:
    """A file system without a free byte where the store keeps artifacts."""
    folder = store / "mlartifacts"
    folder.mkdir(exist_ok=True)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        with suppress(OSError), (folder / "filling").open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(4096))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_files_that_found_no_room_are_delivered_once_there_is_some(
    full_disk: Path, store: Path, run: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._FIRST_PAUSE_SECONDS", 0.01)
    warnings: list[str] = []
    sink = MlflowSink(run, TrackingConfig(uri=uri(store), experiment="refusals"), warnings.append)
    wait_until(lambda: sink.log(line(1)) or warnings)
    assert "No space left on device" in warnings[0]
    (full_disk / "filling").unlink()
    sink.text("sample", 1, "Once upon")
    sink.close("FINISHED")
    steps, files = lines_and_files(store, run)
    assert (set(steps), files) == ({1}, ["config.yaml", "sample"])
    assert len(warnings) == 1


def test_a_store_that_is_away_for_long_holds_up_the_runs_end_only_shortly(
    run: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._SILENT_SECONDS", 0.2)
    monkeypatch.setattr("parallax.metrics.sinks.mlflow._SILENT_CLOSE_SECONDS", 1.0)
    warnings: list[str] = []
    nobody = "http://127.0.0.1:9"
    group = SinkGroup([MlflowSink(run, TrackingConfig(uri=nobody), warnings.append)], warnings.append)
    group.log(line(1))
    wait_until(lambda: warnings)
    time.sleep(0.3)
    began = time.monotonic()
    group.close("FINISHED")
    assert time.monotonic() - began < 10
    assert len(warnings) == 2
    assert f"`parallax track sync {run.directory}` sends what is missing" in warnings[1]
