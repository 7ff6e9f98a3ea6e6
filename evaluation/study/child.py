"""`python -m evaluation.study.child NICE PARENT …`: becomes `python -m parallax.train …`, and dies with PARENT."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Lowers its priority, has itself asked to stop when the parent dies, and turns into the training."""
    nice, parent, *arguments = sys.argv[1:]
    os.nice(int(nice))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # It may have died before the line above.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", "parallax.train", *arguments])


if __name__ == "__main__":
    main()
