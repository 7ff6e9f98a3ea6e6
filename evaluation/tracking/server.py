import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

CHECKOUT = Path(__file__).parents[2]
POSTGRES = CHECKOUT / "mlflow-server" / "postgres.sh"
Store = Literal["sqlite", "postgresql"]
_START_SECONDS = 180.0


def why_no_postgres() -> str | None:
    """What a private PostgreSQL lacks here; None: nothing."""
    done = subprocess.run([str(POSTGRES), "check"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else None


class Server:
    """A real MLflow server on the loopback interface, that can be killed and started again at the same port.

    Args:
        store: what holds its metrics; `postgresql` is a private cluster beside the artifacts.
        options: further ones of `mlflow server`.
        artifacts: folder of the artifacts; None: below the server's own.
    """

    def __init__(self, store: Store, options: Sequence[str] = (), artifacts: Path | None = None) -> None:
        # Not pytest's folder: root's is closed to the user that PostgreSQL runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="plx-mlflow-"))
        self.folder.chmod(0o755)
        self.store = store
        self.uri = f"http://127.0.0.1:{(port := free_port())}"
        self._port = port
        self._options = list(options)
        self._artifacts = artifacts or self.folder / "artifacts"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts it, and its database, and waits until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message has the last of its log.
        """
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self._database_uri()]
        command += ["--artifacts-destination", str(self._artifacts), *self._options]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | quiet | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._wait_until_it_answers()

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / "server.log"

    def kill(self, *, database: bool = False) -> None:
        """SIGKILL to the server and its workers.

        Args:
            database: also end PostgreSQL at once, which then has to recover; SQLite lives in the server.
        """
        if self._process is not None:
            # Its workers are processes of their own, in the group that it leads.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=20)
            self._process = None
        if database and self.store == "postgresql":
            subprocess.run([str(POSTGRES), "stop", str(self.folder), "immediate"], check=True, timeout=90)

    def close(self) -> None:
        """Ends it and deletes its folder."""
        self.kill(database=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _database_uri(self) -> str:
        if self.store == "sqlite":
            return f"sqlite:///{self.folder}/server.db"
        command = [str(POSTGRES), "start", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"mlflow server ended: {self.log.read_text()[-800:]}")
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"mlflow server did not answer within {_START_SECONDS:.0f} s")


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
