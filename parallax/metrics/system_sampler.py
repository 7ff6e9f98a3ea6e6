import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from parallax.errors import DiskFullError, FencedError
from parallax.metrics.journal import Journal
from parallax.metrics.sinks.message import one_line
from parallax.metrics.system import SystemProbe
from parallax.metrics.system_files import next_sample

_STOP_SECONDS = 2.0
_LAST_SAMPLE_SECONDS = 1.0


class SystemSampler:
    """Appends a line about this node to a file every so often, from a thread of its own, while it is entered.

    Leaving takes one more sample unless the last is less than a second old, so that a short run has one too.
    A line has `step`, the sample's number, which goes on over restarts; `time`; and what `SystemProbe` measures.
    Nothing that goes wrong here reaches the run: a full disk costs one warning and the lines that do not fit,
    anything else one warning and the rest of the samples.

    Args:
        path: the file, which no other process may write.
        interval_seconds: between two samples.
        warn: takes one line of text; called from the thread.
        fence: called before each line, which it forbids by raising; see `RunLock.check`.
    """

    def __init__(
        self,
        path: Path,
        interval_seconds: float,
        warn: Callable[[str], None],
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._interval = interval_seconds
        self._warn = warn
        self._fence = fence
        self._stopping = threading.Event()
        self._journal: Journal | None = None
        self._number = 0
        self._warned = False
        # A daemon: a file system that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="system-sampler", daemon=True)

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it; waits for a file system that does not answer for two seconds at most."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        try:
            self._sample_until_stopped(SystemProbe(self._path.parents[1]))
        except FencedError:
            pass  # The run is another process's now, and this one is told so elsewhere.
        except Exception as error:
            self._warn(f"{self._path}: {one_line(error)}; the run goes on without system metrics")
        finally:
            if self._journal is not None:
                with suppress(OSError):
                    self._journal.close()

    def _sample_until_stopped(self, probe: SystemProbe) -> None:
        sampled = time.monotonic()
        while not self._stopping.wait(self._interval):
            self._append(probe)
            sampled = time.monotonic()
        if time.monotonic() - sampled >= min(_LAST_SAMPLE_SECONDS, self._interval):
            self._append(probe)

    def _append(self, probe: SystemProbe) -> None:
        measured = probe.measure()
        try:
            if self._journal is None:
                self._number = next_sample(self._path)
                self._journal = Journal(self._path, self._fence)
            self._journal.append({"step": self._number, **measured})
        except DiskFullError as error:
            if not self._warned:
                self._warn(f"{one_line(error)}; the run goes on, system metrics have gaps")
                self._warned = True
            return
        self._number += 1
