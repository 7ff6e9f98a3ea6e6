"""Writing so that nothing is ever lost: beside, synced, moved into place."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parallax.errors import DiskFullError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
STAGING_MARK = ".incomplete-"


@contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    """Turns the operating system's "no space left" into a `DiskFullError` that names `path`.

    safetensors and others wrap the error in types of their own, so the message is looked at too.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _DISK_FULL
        if not full and "No space left on device" not in str(error):
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
    """Writes a file so that a reader, and a crash, see the old text or the new one, never a part."""
    staging = path.with_name(f"{STAGING_MARK}{path.name}-{os.getpid()}")
    with explain_disk_full(path):
        try:
            with staging.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            staging.replace(path)
            sync_path(path.parent)
        finally:
            staging.unlink(missing_ok=True)


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target` that becomes `target` when the block ends without an error.

    Every file in it is synced before the rename, the parent folder after it; on an error the folder is
    removed and `target` is as it was. `target` must not exist.

    Raises:
        DiskFullError: the disk ran out; `target` is untouched.
        FileExistsError: `target` exists.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists")
    with explain_disk_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f"{STAGING_MARK}{target.name}-{os.getpid()}")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            for path in sorted(staging.rglob("*"), reverse=True):
                sync_path(path)
            sync_path(staging)
            staging.rename(target)
            sync_path(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
