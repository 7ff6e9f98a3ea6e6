import sys
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_SECONDS = 0.5
_TAIL_LINES = 40


def show_log(path: Path, *, follow: bool, is_over: Callable[[], bool]) -> None:
    """Prints a log's last lines, and with `follow` what is added to it until the job is over."""
    while follow and not path.exists() and not is_over():
        time.sleep(_LOOK_SECONDS)
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        sys.stdout.write("".join(file.readlines()[-_TAIL_LINES:]))
        sys.stdout.flush()
        while follow:
            # Asked before the rest is read: what is written before the end is then not missed.
            over = is_over()
            text = file.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            if over and not text:
                return
            time.sleep(_LOOK_SECONDS)
