from pathlib import Path

from parallax.metrics.journal import Record
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun, measurements

TENSORBOARD_FOLDER = "tensorboard"


class TensorBoardSink:
    """TensorBoard events in the run folder's `tensorboard/`; a resumed run hides the steps it makes again."""

    name = "tensorboard"

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge_step = None if run.resumed_step is None else run.resumed_step + 1
        self._writer = SummaryWriter(str(run.directory / TENSORBOARD_FOLDER), purge_step=purge_step)

    def log(self, record: Record) -> None:
        """Writes the line's numbers as scalars of its step."""
        for key, value in measurements(record):
            self._writer.add_scalar(key, value, record["step"], walltime=record["time"])
        # TensorBoard keeps events for two minutes; a killed run would never write them again.
        self._writer.flush()

    def text(self, name: str, step: int, text: str) -> None:
        """Writes the text, fenced so that it is shown as it is and not read as Markdown."""
        self._writer.add_text(name, f"````\n{text}\n````", step)

    def artifact(self, path: Path) -> None:
        """TensorBoard keeps no files."""

    def close(self, status: RunStatus) -> None:
        """Writes what is left; TensorBoard has no notion of a run's status."""
        self._writer.close()
