"""Writing so that nothing is ever lost: beside, synced, moved into place."""

import errno
import functools
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from parallax.errors import DiskFullError

STAGING_MARK = ".incomplete-"
"""How the name of everything half-written begins; it ends in the writer's process id."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    """Turns the operating system's "no space left" and its kin into a `DiskFullError` that names `path`.

    safetensors and others wrap the error in types of their own, so the message is looked at too.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _DISK_FULL
        if not full and not any(os.strerror(code) in str(error) for code in _DISK_FULL):
            raise
        raise DiskFullError(
            f"{path}: the disk or quota is full; what was saved before is intact; "
            f"free space there and run the same command again"
        ) from error


def sync_path(path: Path) -> None:
    """Waits until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: Path, text: str) -> None:
    """`write_bytes_atomic` of UTF-8 text."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, and a crash, see the old content or the new one, never a part."""
    staging = _staging_path(path)
    with explain_disk_full(path):
        try:
            with staging.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staging.replace(path)
            sync_path(path.parent)
        finally:
            staging.unlink(missing_ok=True)


@contextmanager
def staged_directory(
    target: Path, *, replace: bool = False, fence: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Yields an empty folder beside `target` that becomes `target` when the block ends without an error.

    Every file in it is synced before the rename, the parent folder after it; on an error the folder is
    removed and `target` is as it was.

    Args:
        target: what the folder will be called.
        replace: whether `target` may exist. The old folder is deleted only once the new one is in its place;
            a crash between the two renames leaves neither under the name, which readers must expect.
        fence: called when all is on the disk, right before the rename, which it forbids by raising.

    Raises:
        DiskFullError: the disk ran out; `target` is untouched.
        FileExistsError: `target` exists and may not be replaced.
    """
    if target.exists() and not replace:
        raise FileExistsError(f"{target} exists")
    with explain_disk_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = _staging_path(target)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            if replace:
                _sync_below(staging)
                fence()
                _move_into_place(staging, target)
            else:
                fence()
                publish_directory(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def publish_directory(staging: Path, target: Path) -> None:
    """Gives a finished folder its name: everything in it is synced, then it is renamed, then the parent synced.

    Raises:
        FileExistsError: `target` came into being since it was looked for; only the rename itself can tell.
    """
    _sync_below(staging)
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise FileExistsError(f"{target} exists") from None
    sync_path(target.parent)


def publish_file(staging: Path, target: Path) -> None:
    """`publish_directory` of a file, which a plain rename would put in place of another.

    Raises:
        FileExistsError: `target` exists.
    """
    sync_path(staging)
    try:
        target.hardlink_to(staging)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without hard links: look, then rename.
        if target.exists():
            raise FileExistsError(f"{target} exists") from None
        staging.rename(target)
    staging.unlink(missing_ok=True)
    sync_path(target.parent)


def _sync_below(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        sync_path(path)
    sync_path(folder)


def _move_into_place(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        sync_path(target.parent)
        return
    old = _staging_path(target, note="-replaced")
    target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        old.rename(target)
        raise
    sync_path(target.parent)
    shutil.rmtree(old)


def remove_directory(path: Path) -> None:
    """Deletes a folder so that a reader, and a crash, see all of it or nothing: renamed first, then emptied."""
    doomed = _staging_path(path, note="-deleted")
    path.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> list[str]:
    """Deletes what dead processes left half-written directly in `folder`.

    That is everything marked as staging whose writer does not live on this host, or that was last touched
    before this process began (process ids come again, in containers at once). Call it only where no other
    host may be writing into `folder`, that is, while holding its lock.

    Returns:
        The names that were deleted.
    """
    began = psutil.Process().create_time()
    names = []
    for path in sorted(folder.glob(f"{STAGING_MARK}*")):
        writer = path.name.rpartition("-")[2]
        lives = writer.isdecimal() and psutil.pid_exists(int(writer))
        if lives and path.lstat().st_mtime >= began:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        names.append(path.name)
    return names


def _staging_path(target: Path, note: str = "") -> Path:
    return target.with_name(f"{STAGING_MARK}{target.name}{note}-{_process_mark(os.getpid())}-{os.getpid()}")


@functools.cache
def _process_mark(pid: int) -> str:
    """Parts processes of the same number on hosts that share the folder."""
    return secrets.token_hex(4)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
