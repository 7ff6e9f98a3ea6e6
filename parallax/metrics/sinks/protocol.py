from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from parallax.metrics.journal import Record

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended: it reached its end, an error stopped it, or somebody did."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told about a run when it opens."""

    name: str
    """`run.name`."""
    directory: Path
    """The run folder."""
    config: dict[str, Any]
    """The resolved configuration, nested."""
    tags: dict[str, str]
    """Where and with what the run is made: environment, git state, fingerprints of data and tokenizer."""
    history: Sequence[Record] = ()
    """The journal so far, without the steps that will be made again."""
    resumed_step: int | None = None
    """The step of the checkpoint that the run goes on from; None: it begins."""


class Sink(Protocol):
    """A tracker that copies the journal. No method may delay a training step noticeably.

    A method that raises ends the sink's part in the run, not the run.
    """

    name: str
    """For messages."""

    def log(self, record: Record) -> None:
        """Takes one journal line, as `Journal.append` returned it."""
        ...

    def text(self, name: str, step: int, text: str) -> None:
        """Takes a text made at `step`, such as a generated sample."""
        ...

    def artifact(self, path: Path) -> None:
        """Takes a file of the run folder, to be kept under its name."""
        ...

    def close(self, status: RunStatus) -> None:
        """Delivers what is left, within a bounded time, and states how the run ended."""
        ...


def measurements(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers of a journal line by name, without its step and time."""
    for key, value in record.items():
        if key not in ("step", "time") and isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
