"""Where this process is, in words: what a flight-recorder dump says of a rank that is lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Whereabouts:
    """The optimizer step being made, counted from 1, and the innermost phase of it."""

    step: int = 0
    phase: str = "setup"


# One per process, like a log: code far below the loop marks its phase, and the watchdog's thread reads it.
_HERE = Whereabouts()


def whereabouts() -> Whereabouts:
    """A copy of where this process is now."""
    return Whereabouts(_HERE.step, _HERE.phase)


def note_step(step: int) -> None:
    """Says that this optimizer step begins."""
    _HERE.step = step


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Names what happens inside; phases may nest, and the innermost counts. An error leaves its name standing."""
    outer, _HERE.phase = _HERE.phase, name
    yield
    _HERE.phase = outer
