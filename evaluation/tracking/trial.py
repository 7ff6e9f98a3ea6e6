import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evaluation.tracking.check import Comparison, compare_with_mlflow
from evaluation.tracking.run import ShortRun
from evaluation.tracking.store import Kind, StoreServer
from parallax.metrics.sinks.mlflow_run import RUN_FILE
from parallax.train.sync import sync_run

_LINES_AWAY = 20
"""That the run writes while the server is away, at least."""


class Trial(NamedTuple):
    """One run, during which the server was killed several times."""

    before: Comparison
    """When the server was back after the run's end."""
    after: Comparison
    """After `parallax track sync`, twice."""
    start_seconds: list[float]
    """Of each start of the server."""
    end_seconds: float
    """From Ctrl-C to the run's end, while the server was away."""
    said: str
    """What the run printed."""


def run_trial(kind: Kind, folder: Path, corpus: Path, note: Callable[[str], None], *, outages: int = 3) -> Trial:
    """Trains against a real server that is killed several times, the last time until after the run's end.

    Raises:
        BackendError: server or run did not do their part in time.
    """
    server = StoreServer(kind, folder / "server")
    run = ShortRun(folder / "trained", corpus, server.url)
    try:
        starts = [server.start()]
        killed_at = 0
        for outage in range(1, outages + 1):
            killed_at = _kill_amid_lines(server, run, after=killed_at)
            if outage < outages:
                starts.append(server.start())
            note(f"{kind}: outage {outage} of {outages}, killed at step {killed_at}, now step {run.lines}")
        end_seconds = run.interrupt()
        starts.append(server.start())
        before = compare_with_mlflow(run.path, server.url)
        for _ in range(2):  # the second finds nothing to do, and must not send anything twice
            sync_run(run.path)
        return Trial(before, compare_with_mlflow(run.path, server.url), starts, end_seconds, run.said)
    finally:
        run.kill()
        server.stop()


def _kill_amid_lines(server: StoreServer, run: ShortRun, after: int) -> int:
    """Kills a server once it has a step later than `after`, and waits for some that it does not get.

    Returns:
        The run's last step when the server was killed, which no later delivery can lie before.
    """
    run.wait_until(lambda: _last_step_known(run.path, server.url) > after, "lines that reach the server")
    server.kill()
    killed_at = run.lines
    run.wait_until(lambda: run.lines > killed_at + _LINES_AWAY, "lines while the server is away")
    return killed_at


def _last_step_known(run: Path, url: str) -> int:
    """The last step of which the server has a loss; -1: it knows nothing of the run, or is away."""
    if not (run / RUN_FILE).exists():
        return -1
    run_id = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["run_id"]
    try:
        with urllib.request.urlopen(f"{url}/api/2.0/mlflow/runs/get?run_id={run_id}", timeout=5) as answer:
            metrics = json.load(answer)["run"]["data"].get("metrics", [])
    except OSError:
        return -1
    return next((int(metric["step"]) for metric in metrics if metric["key"] == "loss"), -1)
