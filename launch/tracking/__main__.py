"""`python -m launch.tracking [--port PORT] [--folder FOLDER] [-- OPTIONS OF mlflow server]`, or `make mlflow`."""

import argparse
import fcntl
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launch.parser import Parser
from launch.tracking.postgres import INSTALL, Postgres, check_driver
from launch.tracking.server import MlflowServer
from parallax.errors import BackendError, RunError, run_and_explain

_LOOK_SECONDS = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C or SIGTERM; returns the exit code: 0 after an orderly stop, 2 for what is missing."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_and_explain(lambda: _serve(_parse(words)))


def _parse(words: list[str]) -> argparse.Namespace:
    # argparse would give what follows `--` to whatever is left.
    cut = words.index("--") if "--" in words else len(words)
    parser = Parser(
        prog="python -m launch.tracking",
        description="An MLflow server over a PostgreSQL cluster of its own; Ctrl-C stops both.",
        epilog=f"PostgreSQL: {INSTALL}. After -- come options of mlflow server. docs/mlflow-server.md says more.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=5000, help="on 127.0.0.1; default: 5000")
    parser.add_argument("--folder", type=Path, default=Path("runs/mlflow-server"), help="for all its files")
    given = parser.parse_args(words[:cut])
    given.options = words[cut + 1 :]
    return given


def _serve(given: argparse.Namespace) -> int:
    database = Postgres(given.folder / "postgres")
    check_driver()
    stop = threading.Event()
    with ExitStack() as opened:
        opened.enter_context(_told_by_signals(stop))
        opened.enter_context(_alone(given.folder))
        _check_port(given.port)
        opened.callback(database.stop)
        database.start()
        server = MlflowServer(given.folder, given.port, database.uri, given.options)
        opened.callback(server.stop)  # before the database, whose connections it holds
        server.start()
        _say(f"PostgreSQL runs in {given.folder}; MLflow starts, and makes its tables the first time")
        if _wait(stop, server, database, until_it_answers=True):
            _say(f"MLflow answers: MLFLOW_TRACKING_URI={server.url} parallax train …; Ctrl-C stops both")
            _wait(stop, server, database)
        _say("stopping MLflow, then PostgreSQL")
    return 0


def _wait(stop: threading.Event, server: MlflowServer, database: Postgres, until_it_answers: bool = False) -> bool:
    """Until it is told to stop (False), or until the server answers (True). Raises: BackendError."""
    while not stop.wait(_LOOK_SECONDS):
        if database.has_ended:
            raise BackendError(f"PostgreSQL ended: {database.last_line}; start this again, it recovers by itself")
        if server.has_ended:
            raise BackendError(f"mlflow server ended: {server.last_line}; its log is {server.log}")
        if until_it_answers and server.answers:
            return True
    return False


@contextmanager
def _told_by_signals(stop: threading.Event) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second server out of the folder. Raises: RunError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{folder}: another server runs here; stop it, or name another --folder") from None
        yield


def _check_port(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError) as error:
        raise BackendError(f"--port {port}: cannot be listened at ({error}); name another one") from None


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
