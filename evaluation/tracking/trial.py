import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from evaluation.tracking.arrived import Arrived, compare_points, histories_of
from evaluation.tracking.server import CHECKOUT, Server
from evaluation.tracking.training import Setting, Training
from parallax.metrics.journal import read_journal
from parallax.metrics.sinks.mlflow_run import prepare_mlflow


@dataclass(frozen=True)
class Disturbed:
    """A run whose MLflow server was killed three times, the last time over its end."""

    arrived: Arrived
    """After `parallax track sync`, called twice."""
    arrived_before_sync: Arrived
    status: str
    """That MLflow shows in the end."""
    missed_lines: tuple[int, int, int]
    """Steps made while the server was down, in each outage."""
    step_seconds: float
    """Of a median step."""
    log: str
    """What the run printed."""


def disturb(
    setting: Setting, server: Server, name: str, say: Callable[[str], None] = lambda text: None
) -> Disturbed:
    """Trains with a tracker whose server is killed and started again three times.

    In the second outage its database dies as well. After each of the first two the run's own writer has to catch
    up. In the third the run is told to stop, so that its end is for `parallax track sync` to tell.

    Raises:
        RuntimeError: something did not start, or ended too early.
    """
    prepare_mlflow()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    missed = []
    with Training(setting, name, server.uri) as training:
        for outage in range(3):
            training.wait_until(
                lambda: _is_caught_up(client, training, setting.outage_steps // 2),
                f"MLflow had it, outage {outage + 1}",
            )
            before = training.lines
            server.kill(database=outage == 1)
            say(f"outage {outage + 1} from step {before} on")
            training.wait_until(
                lambda seen=before: training.lines >= seen + setting.outage_steps, "an outage's end"
            )
            if outage == 2:
                training.stop()
            server.start()
            missed.append(training.lines - before)
            say(f"outage {outage + 1}: {missed[-1]} steps")
        run_id = training.run_id
        assert run_id is not None
        records = read_journal(training.run / "journal.jsonl")
        before_sync = compare_points(records, _own(histories_of(client, run_id)))
        for _ in range(2):
            sync(training)
        return Disturbed(
            arrived=compare_points(records, _own(histories_of(client, run_id))),
            arrived_before_sync=before_sync,
            status=client.get_run(run_id).info.status,
            missed_lines=(missed[0], missed[1], missed[2]),
            step_seconds=training.step_seconds(),
            log=training.log.read_text(),
        )


def _own(histories: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """Without the nodes' figures, which are in files of their own."""
    return {name: points for name, points in histories.items() if not name.startswith("system/")}


def untracked_step_seconds(setting: Setting, name: str, steps: int) -> float:
    """The median step of the same run without a tracker."""
    with Training(setting, name, None, steps) as training:
        training.finish()
        return training.step_seconds()


def sync(training: Training) -> str:
    """`parallax track sync`; what it printed. Raises: CalledProcessError."""
    command = [sys.executable, "-m", "parallax.cli", "track", "sync", str(training.run)]
    return subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=300).stdout


def _is_caught_up(client: object, training: Training, lag: int) -> bool:
    """Whether MLflow lacks at most the newest `lag` lines."""
    from mlflow.exceptions import MlflowException

    newest, run_id = training.lines, training.run_id
    if run_id is None or newest == 0:
        return False
    try:
        metrics = client.get_run(run_id).data.to_proto().metrics  # type: ignore[attr-defined]
    except MlflowException:
        return False
    return any(metric.step >= newest - lag for metric in metrics if metric.key == "loss")
