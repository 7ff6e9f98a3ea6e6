from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from parallax.config.sections import TrackingConfig
from parallax.errors import BackendError
from parallax.metrics.journal import Record, read_journal
from parallax.metrics.sinks.message import without_password
from parallax.metrics.sinks.mlflow_run import CONFIG_FILE, MlflowRun, prepare_mlflow, resolve_uri, text_path
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun
from parallax.metrics.sinks.refusal import explain
from parallax.metrics.system_files import SystemFiles
from parallax.runtime.lock import RunLock
from parallax.train.run_folder import RunFolder

_STATUSES: dict[str, RunStatus] = {"done": "FINISHED", "stopped": "KILLED"}
"""State of a run -> how it ended; one that died without a word has failed."""
_SAMPLE = "sample"
_FILES = (CONFIG_FILE, "curve.png")


@dataclass(frozen=True)
class Synced:
    """What MLflow holds of a run now."""

    run_id: str
    uri: str
    """Of the store, without a password."""
    lines: int
    """Of the journal, all of which are there."""
    status: RunStatus
    system_samples: int = 0
    """Of the nodes' files, all of which are there."""


def sync_run(
    path: Path, uri: str | None = None, experiment: str | None = None, warn: Callable[[str], None] = print
) -> Synced:
    """Sends to MLflow what it lacks of a run: settings, tags, journal, samples, curve, and how the run ended.

    Doing it again sends nothing twice. The run's own MLflow run is gone on with where the store has it. Nothing is
    written into the run folder but the number of that run; while it lasts, the run cannot be started.

    Args:
        path: the run folder.
        uri: of the store; None: as the run's configuration and the environment say.
        experiment: in which a new MLflow run is made; None: the configuration's.
        warn: takes one line of text, about samples that cannot be read and are left out.

    Raises:
        RunError: there is no run, it is in training (its own writer sends), or its journal or tags are damaged.
        BackendError: the store cannot be reached or refuses; what it has taken it keeps.
    """
    folder = RunFolder(path)
    config = folder.existing_config()
    with RunLock(path):
        history = read_journal(folder.journal)
        tags = folder.read_tags()
        run = TrackedRun(
            name=config.run.name, directory=path, config=config.resolved(), tags=tags, history=history
        )
        status = _STATUSES.get(folder.read_state() or "", "FAILED")
        samples = SystemFiles(path, warn).new_records()
        return _send(run, samples, config.tracking, status, uri, experiment)


def _send(
    run: TrackedRun,
    samples: Sequence[Record],
    tracking: TrackingConfig,
    status: RunStatus,
    uri: str | None,
    experiment: str | None,
) -> Synced:
    prepare_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = resolve_uri(uri or tracking.uri)
    try:
        target = MlflowRun(run, uri, experiment or tracking.experiment)
        target.log(run.history)
        target.log(samples)
        target.finish(status)  # before the files, for which there may be no room
        for record in run.history:
            if isinstance(record.get(_SAMPLE), str):
                target.log_text(record[_SAMPLE], text_path(_SAMPLE, record["step"]))
        for name in _FILES:
            if (run.directory / name).exists():
                target.log_artifact(run.directory / name)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise BackendError(
            f"{without_password(uri)} did not take {run.directory}: {explain(error)}; the same command sends "
            f"what is missing"
        ) from None
    return Synced(target.run_id, without_password(uri), len(run.history), status, len(samples))
