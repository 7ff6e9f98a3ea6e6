import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for the next allocation instead of giving it back to the system.

    By default glibc gets every large tensor from the system and returns it when it is freed. A training step
    allocates gigabytes, and up to a quarter of a step on a CPU goes into the system clearing pages
    (`docs/EXPERIMENTS.md`). What `MALLOC_*` or `GLIBC_TUNABLES` say wins; other systems are left as they are.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    if chosen or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # Other C libraries have none.
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _NEVER)
