import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from parallax.config.sections import TrackingConfig
from parallax.errors import BackendError
from parallax.metrics.journal import Record
from parallax.metrics.sinks.message import without_password
from parallax.metrics.sinks.mlflow_run import CONFIG_FILE, MlflowRun, prepare_mlflow, resolve_uri, text_path
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.sinks.refusal import explain, may_heal
from parallax.metrics.system_files import SystemFiles

_CLOSE_SECONDS = 30.0
_SILENT_SECONDS = 10.0
"""A store that has not answered for so long is given only a few more seconds at the run's end."""
_SILENT_CLOSE_SECONDS = 5.0
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
    the lines that wait become too many. Starting the run again, or `parallax track sync`, sends what is missing,
    from the journal. Files that the store does not take, being full perhaps, do not hold up the lines.

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
        self._failing_since: float | None = None
        self._files: dict[str, _Text | Path] = {}
        self._file_failures = 0
        self._files_due = 0.0
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
        """Waits until everything is delivered, at most `close_seconds`; 5 s if the store is away for long already.

        Raises:
            BackendError: the store did not take everything in time.
        """
        now, since = time.monotonic(), self._failing_since
        is_silent = since is not None and now - since > _SILENT_SECONDS
        seconds = min(self._close_seconds, _SILENT_CLOSE_SECONDS) if is_silent else self._close_seconds
        self._deadline = now + seconds
        self._put(_End(status))
        self._closing.set()
        self._thread.join(seconds)
        if self._failure is not None:
            raise self._incomplete(explain(self._failure))
        if self._thread.is_alive():
            raise self._incomplete(f"it did not take everything within {seconds:.0f} s and still says RUNNING")

    def _put(self, event: _Event) -> None:
        if self._failure is not None:
            raise self._incomplete(explain(self._failure))
        if self._events.qsize() >= _MAX_WAITING:
            raise self._incomplete(f"it has not answered for {_MAX_WAITING:,} lines")
        self._events.put(event)

    def _incomplete(self, why: str) -> BackendError:
        return BackendError(
            f"{self._shown_uri}: {why}; `parallax track sync {self._run.directory}` sends what is missing"
        )

    def _work(self) -> None:
        try:
            prepare_mlflow()
            target = self._patiently(partial(MlflowRun, self._run, self._uri, self._experiment))
            self._patiently(partial(target.log, self._run.history))
            config = self._run.directory / CONFIG_FILE
            self._files = {config.name: config} if config.exists() else {}
            system = SystemFiles(self._run.directory, self._warn)
            ended = False
            while not ended:
                events = self._take()
                ended = any(isinstance(event, _End) for event in events)
                if ended or time.monotonic() >= self._next_look:
                    self._patiently(partial(target.log, system.new_records()))
                    self._next_look = time.monotonic() + (self._look_seconds or float("inf"))
                self._patiently(partial(self._deliver, target, events))
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
        pause, began = _FIRST_PAUSE_SECONDS, time.monotonic()
        while True:
            try:
                result = action()
                self._failing_since = None
                return result
            except Exception as error:
                if not may_heal(error) or time.monotonic() > self._deadline:
                    raise
                if self._failing_since is None:
                    self._warn(f"mlflow: {self._shown_uri}: {explain(error)}; trying again while the run goes on")
                    self._failing_since = began
            if self._closing.wait(pause):
                time.sleep(0.5)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _deliver(self, target: MlflowRun, events: list[_Event]) -> None:
        """Hands events over; doing it again after an error repeats nothing."""
        target.log([event for event in events if isinstance(event, dict)])
        for event in events:
            if isinstance(event, _Text):
                self._files[text_path(event.name, event.step)] = event
            elif isinstance(event, Path):
                self._files[event.name] = event
        end = next((event for event in events if isinstance(event, _End)), None)
        refusal = self._deliver_files(target) if end or time.monotonic() >= self._files_due else None
        if end is not None:
            if refusal is not None:
                time.sleep(0.5)
                refusal = self._deliver_files(target)
            target.finish(end.status)
        if refusal is not None:
            self._wait_with_files(refusal, is_last=end is not None)

    def _deliver_files(self, target: MlflowRun) -> Exception | None:
        """Hands over the files that wait, as far as the store takes them; the error that stopped it."""
        for name, content in tuple(self._files.items()):
            try:
                if isinstance(content, _Text):
                    target.log_text(content.text, name)
                else:
                    target.log_artifact(content)
            except Exception as error:
                return error
            del self._files[name]
        return None

    def _wait_with_files(self, refusal: Exception, is_last: bool) -> None:
        """Plans the next try. Only the second failure is told of: the first may be the whole store going away."""
        self._file_failures += 1
        pause = _FIRST_PAUSE_SECONDS * 2**self._file_failures
        self._files_due = time.monotonic() + min(pause, _LONGEST_PAUSE_SECONDS)
        if is_last or self._file_failures == 2:
            self._warn(
                f"mlflow: {self._shown_uri} takes lines but not files; is its artifact store full? "
                f"({', '.join(self._files)}: {explain(refusal)}); `parallax track sync {self._run.directory}` "
                f"sends them once there is room"
            )
