import errno
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from parallax.errors import RunError
from parallax.runtime.files import explain_disk_full

_LOCK_FILE = ".lock"
_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class RunLock:
    """Keeps a run folder to one process: entering takes the lock, leaving gives it back.

    It is a `flock` on `.lock` in the folder, which the kernel releases when the process ends in whatever way,
    `kill -9` and power failure included; the file itself stays. Its text (process, host, start) only serves
    the message that another process is shown.

    On NFS, Linux (2.6.12 and newer) passes the lock on to the server, so that it also holds between hosts,
    unless the folder is mounted with `nolock` or `local_lock=flock`; then it holds within one host only.

    Args:
        folder: the run folder; made when missing.
        setting: what the user named the folder with, for messages.
    """

    def __init__(self, folder: Path, setting: str = "run.dir") -> None:
        self.folder = folder
        self._setting = setting
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Takes the lock.

        Raises:
            DiskFullError: no room for the lock file.
            RunError: another process, or another lock in this one, holds it; or the folder cannot be locked.
        """
        with explain_disk_full(self.folder):
            descriptor = self._open()
            try:
                self._take(descriptor)
                _write_owner(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        self._release_in_forks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the lock."""
        self._close()

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

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{self.folder} is in use by {_read_owner(descriptor)}; wait for it, end it, "
                f"or choose another {self._setting}"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            raise RunError(
                f"{self.folder} lies on a file system without locks ({os.strerror(error.errno)}); "
                f"choose a {self._setting} on another one"
            ) from None

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


def _write_owner(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)


def _read_owner(descriptor: int) -> str:
    """Who holds the lock, in words; a holder that took it this moment may not have signed yet."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
