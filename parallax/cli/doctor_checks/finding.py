import threading
import time
from collections.abc import Callable, Mapping, Sequence
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


def run_checks(
    checks: Sequence[tuple[str, Check]], timeout_seconds: float, longer: Mapping[str, float] | None = None
) -> list[Finding]:
    """The findings of all checks, run side by side, in the given order; one that hangs or raises is broken.

    Args:
        checks: by name.
        timeout_seconds: after which a check has hung.
        longer: the same of those that may take longer.
    """
    results: dict[str, list[Finding]] = {}

    def fill(name: str, check: Check) -> None:
        try:
            results[name] = check()
        except Exception as error:  # what the doctor could not look at is a finding as well
            results[name] = [Finding(name, "broken", f"the check failed: {type(error).__name__}: {error}")]

    limits = {name: timeout_seconds for name, _ in checks} | dict(longer or {})
    threads = {name: threading.Thread(target=fill, args=(name, check), daemon=True) for name, check in checks}
    start = time.monotonic()
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, start + limits[name] - time.monotonic()))
    late = {name: [Finding(name, "broken", f"no answer in {limits[name]:g} s")] for name in threads}
    return [found for name in threads for found in results.get(name, late[name])]
