import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from parallax.config.sections import TrackingConfig
from parallax.metrics.journal import Record
from parallax.metrics.sinks.message import one_line, without_password
from parallax.metrics.sinks.mlflow_run import MlflowRun, prepare_mlflow, resolve_uri
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.system_files import SystemFiles

_CLOSE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_MAX_WAITING = 10_000

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Text:
    name: str
    step: int
    text: str


@dataclass(frozen=True)
class _End:
    status: RunStatus


_Event = Record | _Text | Path | _End


class MlflowSink:
    """Copies the journal to MLflow from a background thread, which alone imports and calls MLflow.

    So it does with what the nodes sample of themselves, for which it looks into the run folder as often as they
    sample, and at the end.

    A store that does not answer is tried again, up to once a minute, while the lines wait here; one warning
    says so. The run ends without MLflow if the store refuses it (no such experiment, no permission), or if
    the lines that wait become too many. Starting the run again sends what is missing, from the journal.

    If the process dies without `close` (SIGKILL, power), MLflow shows RUNNING until the run is resumed.
    """

    name = "mlflow"

    def __init__(
        self,
        run: TrackedRun,
        tracking: TrackingConfig,
        warn: Callable[[str], None],
        close_seconds: float = _CLOSE_SECONDS,
    ) -> None:
        self._run = run
        self._uri = resolve_uri(tracking.uri)
        self._shown_uri = without_password(self._uri)
        self._experiment = tracking.experiment
        self._warn = warn
        self._close_seconds = close_seconds
        self._look_seconds = tracking.system_interval or None
        self._next_look = 0.0
        self._events: queue.Queue[_Event] = queue.Queue()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._failure: Exception | None = None
        # A daemon: a store that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="mlflow-sink", daemon=True)
        self._thread.start()

    def log(self, record: Record) -> None:
        """Queues a line."""
        self._put(record)

    def text(self, name: str, step: int, text: str) -> None:
        """Queues a text; it becomes the artifact NAME/step-STEP.txt."""
        self._put(_Text(name, step, text))

    def artifact(self, path: Path) -> None:
        """Queues a file, which is read when its turn comes."""
        self._put(path)

    def close(self, status: RunStatus) -> None:
        """Waits until everything is delivered, at most `close_seconds`.

        Raises:
            TimeoutError: the store did not take everything in time.
        """
        self._deadline = time.monotonic() + self._close_seconds
        self._put(_End(status))
        self._closing.set()
        self._thread.join(self._close_seconds)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            raise TimeoutError(
                f"{self._shown_uri} did not take everything within {self._close_seconds:.0f} s and still says "
                f"RUNNING; the same command sends what is missing"
            )

    def _put(self, event: _Event) -> None:
        if self._failure is not None:
            raise self._failure
        if self._events.qsize() >= _MAX_WAITING:
            raise TimeoutError(f"{self._shown_uri} has not answered for {_MAX_WAITING:,} lines")
        self._events.put(event)

    def _work(self) -> None:
        try:
            prepare_mlflow()
            target = self._patiently(partial(MlflowRun, self._run, self._uri, self._experiment))
            self._patiently(partial(target.log, self._run.history))
            system = SystemFiles(self._run.directory, self._warn)
            ended = False
            while not ended:
                events = self._take()
                ended = any(isinstance(event, _End) for event in events)
                if ended or time.monotonic() >= self._next_look:
                    self._patiently(partial(target.log, system.new_records()))
                    self._next_look = time.monotonic() + (self._look_seconds or float("inf"))
                self._patiently(partial(_deliver, target, events))
        except Exception as error:
            self._failure = error

    def _take(self) -> list[_Event]:
        """Everything that waits, at least one event; none if it is time to look for samples before one comes."""
        try:
            events = [self._events.get(timeout=self._look_seconds)]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def _patiently(self, action: Callable[[], Result]) -> Result:
        """Repeats an action that the store failed, with growing pauses, until the deadline of `close`."""
        pause = _FIRST_PAUSE_SECONDS
        warned = False
        while True:
            try:
                return action()
            except Exception as error:
                if not _may_heal(error) or time.monotonic() > self._deadline:
                    raise
                if not warned:
                    self._warn(f"mlflow: {self._shown_uri}: {one_line(error)}; trying again while the run goes on")
                    warned = True
            if self._closing.wait(pause):
                time.sleep(0.5)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _deliver(target: MlflowRun, events: list[_Event]) -> None:
    """Hands events over; doing it again after an error repeats nothing."""
    target.log([event for event in events if isinstance(event, dict)])
    for event in events:
        if isinstance(event, _Text):
            target.log_text(event.text, f"{event.name}/step-{event.step:08d}.txt")
        elif isinstance(event, Path):
            target.log_artifact(event)
        elif isinstance(event, _End):
            target.finish(event.status)


def _may_heal(error: Exception) -> bool:
    """Whether waiting can help: a busy or absent store, not one that says no."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return bool(status >= 500 or status == 429)
    return isinstance(error, OSError | SQLAlchemyError) and not isinstance(error, FileNotFoundError)
