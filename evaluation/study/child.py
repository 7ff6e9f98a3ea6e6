"""`python -m evaluation.study.child NICE PARENT …`: becomes `python -m parallax.train …`, and dies with PARENT."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOWEST = 19


def main() -> None:
    """Lowers its priority, has itself asked to stop when the parent dies, and turns into the training."""
    nice, parent, *arguments = sys.argv[1:]
    _lower_priority(int(nice))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # It may have died before the line above.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", "parallax.train", *arguments])


def _lower_priority(nice: int) -> None:
    """Also that of its session: Linux shares processors out among sessions first (`sched_autogroup_enabled`)."""
    lowered = os.nice(nice)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(min(lowered, _LOWEST)))


if __name__ == "__main__":
    main()
