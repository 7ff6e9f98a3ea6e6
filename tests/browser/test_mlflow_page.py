"""MLflow's page of a run that was trained here, as a browser shows it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watched_page import WatchedPage

Opener = Callable[..., WatchedPage]
_PATIENCE = 40_000
"""Milliseconds, in which a page of MLflow, megabytes of script, must be there on a busy machine."""
_MLFLOWS_OWN = {
    r"Failed to load resource: the server responded with a status of 404 \(Not Found\) "
    r"\[http://127\.0\.0\.1:\d+/ajax-api/2\.0/mlflow/users/current\]": "it asks who is logged in, "
    "which a server without accounts does not know",
    r"null ResizeObserver loop completed with undelivered notifications\. "
    r"\[http://127\.0\.0\.1:\d+/static-files/static/js/main\.[0-9a-f]+\.js\]": "browsers say so when charts that "
    "fit themselves to their place are laid out over two frames",
}


@pytest.fixture(scope="module")
def server(trained: Path) -> Iterator[str]:
    """The address of a server of MLflow over the store that the runs were told to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # As Ctrl-C does, `timeout` then ends the session and not just the process, and the server with it.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (trained / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--backend-store-uri", "sqlite:///runs/mlflow.db"],
            stdout=log,
            stderr=log,
            cwd=trained,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
        )
        try:
            _wait(f"{address}/health", process)
            yield address
        finally:
            # Its workers are processes of their own, in the group that it leads.
            os.killpg(process.pid, 9)
            process.wait(timeout=20)
            signal.signal(signal.SIGTERM, before)


def _wait(address: str, process: "subprocess.Popen[bytes]", seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


@pytest.mark.timeout(240)
def test_mlflow_draws_the_runs_curves_and_shows_its_files(server: str, trained: Path, open_page: Opener) -> None:
    from mlflow import MlflowClient

    run_id = json.loads((trained / "runs/loops2-seed0/mlflow_run.json").read_text())["run_id"]
    experiment = MlflowClient(server).get_run(run_id).info.experiment_id
    shown = open_page(f"{server}/#/experiments/{experiment}/runs/{run_id}/model-metrics", height=720)
    page = shown.page
    page.set_default_timeout(_PATIENCE)
    page.get_by_role("heading", name="loops2-seed0").wait_for()
    # A pane beside, from which nothing is needed.
    assistant = page.get_by_role("button", name="Close", exact=True)
    if assistant.count():
        assistant.click()
    # Charts are drawn once they are in sight.
    page.get_by_placeholder("Search metric charts").fill("loss")
    for metric in ("loss", "val_loss"):
        card = page.get_by_test_id("experiment-view-compare-runs-card").filter(
            has=page.get_by_title(metric, exact=True)
        )
        curve = card.locator("svg.main-svg .scatterlayer path.js-line").first
        curve.wait_for()
        assert curve.evaluate("path => path.getTotalLength()") > 50
    shown.keep_screenshot("mlflow-run")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("config.yaml").wait_for()
    page.get_by_text("curve.png").click()
    picture = page.locator("img[src*='blob:'], img[src*='curve.png']").first
    picture.wait_for()
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert picture.evaluate("image => image.naturalWidth") > 300
    shown.keep_screenshot("mlflow-files")
    assert shown.unexplained(_MLFLOWS_OWN) == []
