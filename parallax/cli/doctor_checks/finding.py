import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What it is: `torch`, `gloo`, `launcher srun`."""
    state: State
    """ok; note: missing, but training works without it; broken: training here needs it."""
    text: str
    """What was found and, unless ok, the way out."""


Check = Callable[[], list[Finding]]


def run_checks(checks: Sequence[tuple[str, Check]], timeout_seconds: float) -> list[Finding]:
    """The findings of all checks, run side by side, in the given order; one that hangs or raises is broken."""
    results: dict[str, list[Finding]] = {}

    def fill(name: str, check: Check) -> None:
        try:
            results[name] = check()
        except Exception as error:  # what the doctor could not look at is a finding as well
            results[name] = [Finding(name, "broken", f"the check failed: {type(error).__name__}: {error}")]

    threads = [threading.Thread(target=fill, args=pair, daemon=True) for pair in checks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer in {timeout_seconds:g} s"
    return [found for name, _ in checks for found in results.get(name, [Finding(name, "broken", late)])]
