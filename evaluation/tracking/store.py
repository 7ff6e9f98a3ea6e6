import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from launch.machine import free_port
from launch.tracking.postgres import Postgres, check_driver, find_programs
from launch.tracking.server import MlflowServer
from parallax.errors import BackendError

Kind = Literal["sqlite", "postgresql"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")
_START_SECONDS = 180.0


def why_no_postgres() -> str | None:
    """What PostgreSQL lacks here; None: nothing."""
    try:
        find_programs(Path("nowhere"))
        check_driver()
    except BackendError as error:
        return str(error)
    return None


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder with a short path that the user `postgres` may enter, too."""
    folder = Path(tempfile.mkdtemp(prefix="plx-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class StoreServer:
    """A real `mlflow server` over one of its stores, which can be killed and started again at the same address.

    Args:
        kind: of the store.
        folder: for all its files; the user `postgres` must be able to enter it where root asks for PostgreSQL.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self._database = Postgres(folder / "postgres") if kind == "postgresql" else None
        uri = self._database.uri if self._database else f"sqlite:///{folder.absolute() / 'server.db'}"
        self._server = MlflowServer(folder, free_port(), uri)
        self.url = self._server.url

    def start(self) -> float:
        """Starts it and waits until it answers; the seconds that took.

        Raises:
            BackendError: it does not.
        """
        began = time.monotonic()
        if self._database:
            self._database.start()
        self._server.start()
        while not self._server.answers:
            if self._server.has_ended or time.monotonic() - began > _START_SECONDS:
                raise BackendError(f"mlflow server does not answer: {self._server.last_line}")
            time.sleep(0.1)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL to the server, its workers and its database."""
        self._server.kill()
        if self._database:
            self._database.kill()

    def stop(self) -> None:
        """An orderly end."""
        self._server.stop()
        if self._database:
            self._database.stop()
