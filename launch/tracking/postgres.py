import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launch.machine import check_installed
from launch.tracking.logged_process import LoggedProcess
from parallax.errors import BackendError

INSTALL = "apt-get install -y postgresql"
_INSTALLED = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin")
_USER = "postgres"
_NAME = "mlflow"
"""Of the database and of its owner."""
_LONGEST_SOCKET_BYTES = 107
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class Postgres(LoggedProcess):
    """A PostgreSQL cluster below a folder, reached through a Unix socket by whoever may enter its folder.

    It runs as the calling user; called by root, whom PostgreSQL refuses, as the user `postgres`. Its files are
    made once and used again.

    Args:
        folder: made where missing; `data`, `socket` and `postgres.log` lie in it.

    Raises:
        BackendError: PostgreSQL is not installed, or the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        super().__init__(self._folder / "postgres.log")
        self._data = self._folder / "data"
        self._socket = self._folder / "socket"
        self._programs = find_programs(self._data)
        self._owner = _owner()
        longest = len(os.fsencode(self._socket / ".s.PGSQL.5432"))
        if longest > _LONGEST_SOCKET_BYTES:
            raise BackendError(
                f"{self._socket}: too long for a Unix socket, {longest} bytes of {_LONGEST_SOCKET_BYTES}; "
                f"name a folder with a shorter path"
            )

    @property
    def uri(self) -> str:
        """For SQLAlchemy, and so for `mlflow server --backend-store-uri`."""
        return f"postgresql://{_NAME}@/{_NAME}?host={self._socket}"

    def start(self) -> None:
        """Starts it, after making its files and database where there are none, and waits until it answers.

        One left over from a caller that was killed is stopped first.

        Raises:
            BackendError: it does not start; the message ends in PostgreSQL's own last line.
        """
        self._make_folders()
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()
        self._stop_leftover()
        self._start()
        query = f"SELECT 1 FROM pg_database WHERE datname = '{_NAME}'"
        if not self._call("psql", "--dbname=postgres", "--tuples-only", "--command", query).strip():
            self._call("createdb", _NAME)

    def stop(self) -> None:
        """Ends open transactions, writes everything down and leaves; the files stay."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # its "fast shutdown"
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)  # recovers from its log at the next start
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Loses its process to SIGKILL; those that serve connections notice and leave."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _make_folders(self) -> None:
        for folder in (self._folder, self._socket):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            if self._owner:
                shutil.chown(folder, _USER, self._owner["group"])
        if not self._owner:
            return
        entering = subprocess.run(["test", "-w", str(self._folder)], check=False, **self._owner)
        if entering.returncode:
            raise BackendError(
                f"{self._folder}: PostgreSQL refuses to run as root, and the user {_USER} may not come here; "
                f"name a folder that others may enter, such as /var/lib/parallax, or start it as another user"
            )

    def _make_cluster(self) -> None:
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        # `trust` asks nobody who he is: the socket's folder lets in its owner and root only.
        options = [f"--username={_NAME}", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        self._run([self._programs / "initdb", f"--pgdata={unfinished}", *options])
        unfinished.rename(self._data)

    def _stop_leftover(self) -> None:
        control = [str(self._programs / "pg_ctl"), f"--pgdata={self._data}"]
        if subprocess.run([*control, "status"], capture_output=True, check=False, **self._where()).returncode == 0:
            self._run([*control, "stop", "--mode=fast", "--wait"])

    def _start(self) -> None:
        settings = ("listen_addresses=", f"unix_socket_directories={self._socket}", "unix_socket_permissions=0700")
        command: list[Any] = [self._programs / "postgres", "-D", self._data]
        command += [word for setting in settings for word in ("-c", setting)]
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self._launch(command, **self._where())
            while not self.has_ended:
                if self._answers():
                    return
                if time.monotonic() > deadline:
                    self.stop()
                    raise BackendError(f"PostgreSQL does not answer within {_START_SECONDS:g} s: {self.last_line}")
                time.sleep(0.1)
            self._process = None
            # What is left of one that was killed takes a moment to notice.
            if "still in use" not in self.log.read_text(errors="replace")[-500:] or time.monotonic() > deadline:
                raise BackendError(f"PostgreSQL did not start: {self.last_line}; its log is {self.log}")
            time.sleep(0.5)

    def _answers(self) -> bool:
        asking = [str(self._programs / "pg_isready"), "--quiet", f"--host={self._socket}"]
        return subprocess.run(asking, check=False, **self._where()).returncode == 0

    def _call(self, program: str, *arguments: str) -> str:
        return self._run([self._programs / program, f"--host={self._socket}", f"--username={_NAME}", *arguments])

    def _run(self, command: Sequence[Any]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._where())
        if done.returncode:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise BackendError(f"{self._folder}: {Path(command[0]).name}: {said}")
        return done.stdout

    def _where(self) -> dict[str, Any]:
        return {**self._owner, "cwd": self._folder}


def check_driver() -> None:
    """Refuses where MLflow would find no way to PostgreSQL.

    Raises:
        BackendError: psycopg is missing.
    """
    # SQLAlchemy 2.1 opens `postgresql://` with psycopg 3, and not with psycopg2.
    check_installed("psycopg", "pip install 'parallax[postgres]'")


def find_programs(data: Path) -> Path:
    """The folder with PostgreSQL's programs: of the version that made `data`, else the newest installed.

    Raises:
        BackendError: none is installed, or not the one that made `data`.
    """
    found = {_major_version(folder): folder for folder in _program_folders()}
    if not found:
        raise BackendError(f"PostgreSQL is not installed (no initdb found); as root: {INSTALL}")
    made_by = data / "PG_VERSION"
    if not made_by.exists():
        return found[max(found)]
    version = int(made_by.read_text())
    if version not in found:
        raise BackendError(
            f"{data}: made by PostgreSQL {version}; installed: {', '.join(map(str, sorted(found)))}; "
            f"as root: apt-get install -y postgresql-{version}, or move it over with pg_upgrade"
        )
    return found[version]


def _program_folders() -> Iterator[Path]:
    first = shutil.which("initdb")
    folders = [Path(first).resolve().parent] if first else []
    for pattern in _INSTALLED:
        folders += Path("/").glob(pattern)
    return (folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists())


def _major_version(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"\d+", said)
    return int(number.group()) if number else 0


def _owner() -> dict[str, Any]:
    """For `subprocess`: the user to become, nobody else unless we are root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        raise BackendError(
            f"PostgreSQL refuses to run as root, and there is no user {_USER}; "
            f"Debian's package makes it: {INSTALL}"
        ) from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
