from collections.abc import Callable, Sequence
from pathlib import Path

from parallax.metrics.journal import Record
from parallax.metrics.sinks.message import one_line
from parallax.metrics.sinks.protocol import RunStatus, Sink


class SinkGroup:
    """The sinks of a run as one. A sink that fails is dropped with one warning; the run never notices."""

    def __init__(self, sinks: Sequence[Sink], warn: Callable[[str], None]) -> None:
        self._sinks = list(sinks)
        self._warn = warn

    @property
    def names(self) -> list[str]:
        """The sinks that still take part."""
        return [sink.name for sink in self._sinks]

    def log(self, record: Record) -> None:
        """Hands a journal line, as `Journal.append` returned it, to every sink."""
        self._each(lambda sink: sink.log(record))

    def text(self, name: str, step: int, text: str) -> None:
        """Hands a text made at `step` to every sink."""
        self._each(lambda sink: sink.text(name, step, text))

    def artifact(self, path: Path) -> None:
        """Hands a file of the run folder to every sink."""
        self._each(lambda sink: sink.artifact(path))

    def close(self, status: RunStatus) -> None:
        """Closes every sink with the run's true end."""
        self._each(lambda sink: sink.close(status))
        self._sinks.clear()

    def _each(self, action: Callable[[Sink], None]) -> None:
        for sink in tuple(self._sinks):
            try:
                action(sink)
            except Exception as error:
                self._sinks.remove(sink)
                self._warn(f"{sink.name}: {one_line(error)}; the run goes on without it, its journal is complete")
