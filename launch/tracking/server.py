import os
import signal
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launch.tracking.logged_process import LoggedProcess

_STOP_SECONDS = 15.0
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Nobody gives this server jobs, and the processes that wait for some cost seconds and memory.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class MlflowServer(LoggedProcess):
    """`mlflow server` on the loopback interface, with what it says in `mlflow.log`.

    Args:
        folder: for the log and, in `artifacts`, what runs keep.
        port: to listen at.
        store: URI of the database.
        options: further ones of `mlflow server`, such as `--workers 4`; a later one wins.
    """

    def __init__(self, folder: Path, port: int, store: str, options: Sequence[str] = ()) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder.absolute()
        super().__init__(self._folder / "mlflow.log")
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", store]
        self._command += ["--artifacts-destination", str(self._folder / "artifacts"), *options]

    def start(self) -> None:
        """Starts it and returns at once; `answers` tells when it is there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._launch(self._command, cwd=self._folder, env={**_SETTINGS, **os.environ})

    @property
    def answers(self) -> bool:
        """Whether it takes requests."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """Lets it finish the requests that it has; after 15 s it is killed."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while not self.has_ended and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)  # type: ignore[union-attr]
