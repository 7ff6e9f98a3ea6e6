import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.cpp_extension import _get_build_directory

from parallax.errors import BackendError

Report = Callable[[str], None]
_TORCH_LOCK = "lock"


def say(text: str) -> None:
    """On stderr, of whichever rank: the one that compiles may not be the one that has the screen."""
    print(text, file=sys.stderr, flush=True)


def load_operator(builder: Any, report: Report = say) -> None:
    """Loads one of DeepSpeed's compiled operators; the first process on a machine that needs it compiles it.

    PyTorch marks a build by a file, and a build that is killed leaves it: every later process would wait for ever.
    Here a lock that ends with its process surrounds the build, so that whoever has it knows such a file for what
    it is.

    Args:
        builder: of the operator, such as `CPUAdamBuilder()`.
        report: told what takes minutes.

    Raises:
        BackendError: it cannot be compiled here.
    """
    # Its absolute path, made where it is missing: below TORCH_EXTENSIONS_DIR, or the user's cache.
    folder = Path(_get_build_directory(builder.name, verbose=False))
    compiled = folder / f"{builder.name}.so"
    _find_ninja()
    with _alone(folder, report if not compiled.exists() else lambda _: None):
        clear_stale_lock(folder, report)
        if not compiled.exists():
            report(f"compiling DeepSpeed's {builder.name} into {folder}; a minute or more, once")
        try:
            builder.load(verbose=False)
        except (RuntimeError, ImportError, OSError) as error:
            first = str(error).splitlines()[0]
            raise BackendError(
                f"DeepSpeed's {builder.name} cannot be compiled here ({first}); install a C++ compiler and ninja, "
                f"or set deepspeed.offload_optimizer=false"
            ) from error


def clear_stale_lock(folder: Path, report: Report) -> None:
    """Removes the mark of a build that no longer runs; only for whoever holds our lock on the folder."""
    mark = folder / _TORCH_LOCK
    if mark.exists():
        mark.unlink()
        report(f"removed {mark}, which a build that was killed had left")


def _find_ninja() -> None:
    """Ninja is installed beside the interpreter, whose folder an environment has in PATH once activated."""
    if shutil.which("ninja") is None:
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


@contextmanager
def _alone(folder: Path, report: Report) -> Iterator[None]:
    """Holds a lock that the system releases when its process ends in whatever way."""
    descriptor = os.open(folder.with_name(f"{folder.name}.parallax-lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process that compiles DeepSpeed's operator in {folder}; minutes, once")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
