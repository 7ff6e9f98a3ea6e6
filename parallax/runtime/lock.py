import errno
import fcntl
import json
import os
import secrets
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from parallax.errors import FencedError, RunError
from parallax.runtime.attempt import Attempt, read_attempt
from parallax.runtime.files import STAGING_MARK, explain_disk_full

_LOCK_FILE = ".lock"
_OWNER_BYTES = 4096
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class RunLock:
    """Keeps a run folder to one process: entering takes the lock, leaving gives it back.

    It is a `flock` on `.lock` in the folder, which the kernel releases when the process ends in whatever way,
    `kill -9` and power failure included; the file itself stays. Its text says who holds it, with a token of
    this one holding.

    On NFS, Linux (2.6.12 and newer) passes the lock on to the server, so that it also holds between hosts,
    unless the folder is mounted with `nolock` or `local_lock=flock`; then it holds within one host only. The
    server may keep the lock of a host that died or cannot be reached.

    A requeued job therefore takes the run over from an earlier start of itself: it puts a lock file of its own
    in the place of the one that is held. Whoever held that is fenced: `check`, which comes before every write
    to the run, finds another's token. So it also does where a file system let two processes have the lock.

    Args:
        folder: the run folder; made when missing.
        setting: what the user named the folder with, for messages.
    """

    def __init__(self, folder: Path, setting: str = "run.dir") -> None:
        self.folder = folder
        self._setting = setting
        self._descriptor: int | None = None
        self._token = ""

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            DiskFullError: no room for the lock file.
            RunError: another process, or another lock in this one, holds it; or the folder cannot be locked.
        """
        with explain_disk_full(self.folder):
            self._descriptor = self._acquire()
        self._release_in_forks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the lock."""
        self._close()

    def check(self) -> None:
        """To be called before each write to the run, by the process that holds the lock; else it does nothing.

        Raises:
            FencedError: another process has claimed the run since; nothing may be written any more.
        """
        if self._descriptor is None:
            return
        owner = _parse_owner(_read_file(self.folder / _LOCK_FILE))
        if owner.get("token") != self._token:
            raise FencedError(
                f"{self.folder} was claimed by {_describe(owner)}; this process ({_describe(_myself())}) is left "
                f"over from before, and ends without another write"
            )

    @property
    def is_lost(self) -> bool:
        """Whether `check` would raise."""
        try:
            self.check()
        except FencedError:
            return True
        return False

    def _acquire(self) -> int:
        """A locked, signed descriptor of the file that is in place."""
        self._token = secrets.token_hex(8)
        while True:
            descriptor = self._open()
            try:
                taken = self._take(descriptor)
                # While this process was opening the file, another may have put its own in place.
                if taken and _is_in_place(descriptor, self.folder / _LOCK_FILE):
                    _sign(descriptor, self._token)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not taken:
                return self._replace()

    def _open(self) -> int:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(self.folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileExistsError, NotADirectoryError):
            raise RunError(f"{self.folder} is not a folder; choose another {self._setting}") from None
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise RunError(
                f"{self.folder} cannot be written to ({os.strerror(error.errno)}); choose another {self._setting}"
            ) from None

    def _take(self, descriptor: int) -> bool:
        """Locks the file; False: an earlier start of this job holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _parse_owner(os.pread(descriptor, _OWNER_BYTES, 0))
            mine, theirs = read_attempt(), Attempt.parse(str(owner.get("attempt")))
            if mine is not None and theirs is not None and mine.supersedes(theirs):
                return False
            raise RunError(
                f"{self.folder} is in use by {_describe(owner)}; wait for it, end it, "
                f"or choose another {self._setting}"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise RunError(
                f"{self.folder} lies on a file system without locks ({os.strerror(error.errno)}); "
                f"choose a {self._setting} on another one"
            ) from None
        return True

    def _replace(self) -> int:
        """Puts a new lock file, locked and signed already, in the place of the one that another holds."""
        staging = self.folder / f"{STAGING_MARK}lock-{self._token}-{os.getpid()}"
        descriptor = os.open(staging, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(descriptor, self._token)
            staging.replace(self.folder / _LOCK_FILE)
        except BaseException:
            os.close(descriptor)
            staging.unlink(missing_ok=True)
            raise
        return descriptor

    def _release_in_forks(self) -> None:
        """A forked child would hold the lock for as long as it outlives this process; so it lets go."""
        # The hook cannot be taken back, so it must not keep this lock alive.
        reference = weakref.ref(self)

        def release() -> None:
            if (lock := reference()) is not None:
                lock._close()

        os.register_at_fork(after_in_child=release)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _is_in_place(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _sign(descriptor: int, token: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_myself() | {"token": token}).encode() + b"\n", 0)
    os.fsync(descriptor)


def _myself() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    attempt = read_attempt()
    job = {"attempt": str(attempt)} if attempt is not None else {}
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, **job}


def _read_file(path: Path) -> bytes:
    """Opens it anew: on NFS that asks the server whether it is still the same file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _parse_owner(text: bytes) -> dict[str, Any]:
    """What a holder signed with; empty when it took the lock this moment and has not signed yet."""
    try:
        owner = json.loads(text)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict[str, Any]) -> str:
    try:
        job = f" in attempt {owner['attempt']}" if "attempt" in owner else ""
        return f"process {owner['pid']} on {owner['host']}{job} since {owner['since']}"
    except KeyError:
        return "another process"
