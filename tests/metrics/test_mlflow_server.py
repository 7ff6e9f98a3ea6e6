import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from parallax.config.sections import TrackingConfig
from parallax.metrics.sinks.mlflow import MlflowSink
from parallax.metrics.sinks.mlflow_run import prepare_mlflow
from parallax.metrics.sinks.protocol import TrackedRun

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def mlflow_server(folder, port):
    """A real server on the loopback interface, gone when the block ends."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            [*command, *stores],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
        )
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}/health", process)
            yield
        finally:
            # Its workers are processes of their own, in the group that it leads.
            os.killpg(process.pid, 9)
            process.wait(timeout=20)


def wait_until_it_answers(url, process, seconds=90):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


def lines(*steps):
    return [{"step": step, "time": 1000.0 + step, "loss": step / 10} for step in steps]


@pytest.mark.timeout(240)
def test_a_server_that_is_killed_and_started_again_misses_nothing_and_gets_nothing_twice(tmp_path, capfd):
    prepare_mlflow()
    from mlflow import MlflowClient

    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"png")
    warnings = []
    run = TrackedRun(name="tiny", directory=tmp_path, config={"seed": 0}, tags={"host": "here"})
    run_file = tmp_path / "mlflow_run.json"
    with mlflow_server(tmp_path, port):
        sink = MlflowSink(run, TrackingConfig(uri=uri, experiment="loopback"), warnings.append, close_seconds=60)
        sink.log(lines(10)[0])
        wait_until(lambda: run_file.exists())
        run_id = json.loads(run_file.read_text())["run_id"]
        client = MlflowClient(tracking_uri=uri)
        wait_until(lambda: client.get_metric_history(run_id, "loss"))
    for line in lines(20, 30):
        sink.log(line)
    wait_until(lambda: warnings)
    with mlflow_server(tmp_path, port):
        sink.log(lines(40)[0])
        sink.artifact(picture)
        sink.close("FINISHED")
        assert [m.step for m in client.get_metric_history(run_id, "loss")] == [10, 20, 30, 40]
        assert client.get_run(run_id).info.status == "FINISHED"
        assert [item.path for item in client.list_artifacts(run_id)] == ["curve.png"]
    assert len(warnings) == 1
    assert f"mlflow: {uri}: MlflowException" in warnings[0]
    assert capfd.readouterr() == ("", "")


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.1)
