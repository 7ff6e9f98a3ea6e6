import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from parallax.config.flatten import flatten
from parallax.errors import RunError
from parallax.metrics.journal import Record
from parallax.metrics.sinks.message import without_password
from parallax.metrics.sinks.protocol import RunStatus, TrackedRun, measurements
from parallax.runtime.files import publish_file, write_text_atomic

DEFAULT_URI = "sqlite:///runs/mlflow.db"
RUN_FILE = "mlflow_run.json"
CONFIG_FILE = "config.yaml"
SWEEP_VARIABLE = "PARALLAX_SWEEP"
_PARENT_TAG = "mlflow.parentRunId"
_SQLITE = "sqlite:///"
_METRICS_PER_BATCH = 1000
_ENTITIES_PER_BATCH = 100

Item = TypeVar("Item")

# MLflow's own names for what its pages show in columns of their own.
_MLFLOW_TAGS = {
    "git.commit": "mlflow.source.git.commit",
    "git.branch": "mlflow.source.git.branch",
    "command": "mlflow.source.name",
    "user": "mlflow.user",
}

_MLFLOW_SETTINGS = {
    # Importing MLflow would otherwise report its use to its makers over the network.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Standard output belongs to the command that runs.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The sink tries again by itself, and says so.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def resolve_uri(configured: str | None) -> str:
    """The store to use: `tracking.uri`, else MLFLOW_TRACKING_URI, else the SQLite file runs/mlflow.db."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


class MlflowRun:
    """The MLflow run of a training run: one over all its restarts. Every method waits for the store.

    A member of a sweep (PARALLAX_SWEEP names its file) is a child of one run for all members.
    Its id is kept in the run folder's `mlflow_run.json`. A run that this file names and that the store still
    has is continued; otherwise a new one is made and, from the journal, filled from the first step on.

    Raises:
        mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError: from any method, whatever
            the store or the way to it has.
    """

    def __init__(self, run: TrackedRun, uri: str, experiment: str) -> None:
        from mlflow import MlflowClient

        self._run = run
        with _alone_in_store(uri):
            # The client opens the store at once, and makes its tables where there are none.
            self._client = MlflowClient(tracking_uri=uri)
        self.run_id = self._continued() or self._created(uri, experiment)
        self._recorded: dict[str, int] | None = None
        self._describe()

    def _continued(self) -> str | None:
        from mlflow.exceptions import MlflowException

        run_id = _kept_run_id(self._run.directory / RUN_FILE)
        if run_id is None:
            return None
        try:
            info = self._client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if info.lifecycle_stage == "deleted":
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _created(self, uri: str, experiment: str) -> str:
        experiment_id = self._experiment_id(uri, experiment)
        sweep = os.environ.get(SWEEP_VARIABLE)
        tags = {_PARENT_TAG: self._parent(Path(sweep), experiment_id, uri)} if sweep else {}
        run = self._client.create_run(experiment_id, tags=tags, run_name=self._run.name)
        run_id = str(run.info.run_id)
        facts = {"run_id": run_id, "experiment": experiment, "tracking_uri": without_password(uri)}
        write_text_atomic(self._run.directory / RUN_FILE, json.dumps(facts, indent=2) + "\n")
        return run_id

    def _parent(self, sweep: Path, experiment_id: str, uri: str) -> str:
        """The run under which MLflow shows the members of a sweep; the first of them to come here makes it.

        Its id is kept beside the sweep's file. It computes nothing, so it is finished once it is made.
        """
        kept = sweep.with_name(f"{sweep.stem}.mlflow.json")
        with kept.with_name(f".{kept.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            facts = {"experiment_id": experiment_id, "tracking_uri": without_password(uri)}
            if kept.exists():
                known = json.loads(kept.read_text(encoding="utf-8"))
                if known | facts == known:
                    return str(known["run_id"])
            run_id = str(self._client.create_run(experiment_id, run_name=sweep.parent.name).info.run_id)
            self._client.set_terminated(run_id, status="FINISHED")
            write_text_atomic(kept, json.dumps({"run_id": run_id, **facts}, indent=2) + "\n")
            return run_id

    def _experiment_id(self, uri: str, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=_artifact_location(uri)))
        except MlflowException as error:
            # Another run made it in this moment.
            found = self._client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def _describe(self) -> None:
        """Parameters and tags.

        MLflow's parameters are written once and never change, so what a restart changed (more steps, say) is
        told in tags named `changed.KEY`.
        """
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self.run_id).data.params
        params = {key: _plain(value) for key, value in flatten(self._run.config).items()}
        changed = {f"changed.{k}": v for k, v in params.items() if k in known and known[k] != v}
        tags = self._run.tags | changed
        tags |= {alias: tags[key] for key, alias in _MLFLOW_TAGS.items() if key in tags}
        all_tags = [RunTag(key, value) for key, value in tags.items()]
        for tag_chunk in _chunks(all_tags, _ENTITIES_PER_BATCH):
            self._client.log_batch(self.run_id, tags=tag_chunk)
        new_params = [Param(key, value) for key, value in params.items() if key not in known]
        for param_chunk in _chunks(new_params, _ENTITIES_PER_BATCH):
            self._client.log_batch(self.run_id, params=param_chunk)

    def log(self, records: Sequence[Record]) -> None:
        """Sends journal lines; what the store has already is not sent twice.

        The same lines may be given again: a value counts as there if the store holds one of the same name at
        the same or a later step, since lines go in order. At the start and after an error, when some may have
        arrived and some not, the store is asked.
        """
        recorded = self._last_recorded_steps() if self._recorded is None else self._recorded
        self._recorded = None
        for batch in _batches(records, recorded):
            self._client.log_batch(self.run_id, metrics=batch)
        for record in records:
            recorded |= {key: max(record["step"], recorded.get(key, 0)) for key, _ in measurements(record)}
        self._recorded = recorded

    def _last_recorded_steps(self) -> dict[str, int]:
        # The store keeps the value of the highest step by itself; histories would take a request for each name.
        newest = self._client.get_run(self.run_id).data.to_proto().metrics
        return {metric.key: metric.step for metric in newest}

    def log_text(self, text: str, path: str) -> None:
        """Keeps a text as the artifact `path`; an earlier one of that name is replaced."""
        self._client.log_text(self.run_id, text, path)

    def log_artifact(self, path: Path) -> None:
        """Keeps a copy of a file; an earlier one of that name is replaced."""
        self._client.log_artifact(self.run_id, str(path))

    def finish(self, status: RunStatus) -> None:
        """States how the run ended."""
        self._client.set_terminated(self.run_id, status=status)


def text_path(name: str, step: int) -> str:
    """The artifact that a text made at a step becomes."""
    return f"{name}/step-{step:08d}.txt"


def prepare_mlflow() -> None:
    """Imports MLflow (seconds) and makes it quiet; settings that the user has made in the environment win."""
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401  # configures the loggers below when it is imported

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of every attempt to connect; the sink warns once.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


@contextmanager
def _alone_in_store(uri: str) -> Iterator[None]:
    """Keeps other runs out of a SQLite store, and makes one that is absent.

    Several that make its tables at once would spoil them for good.
    """
    if not uri.startswith(_SQLITE):
        yield
        return
    database = Path(uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            _make_store(database)
        yield


def _make_store(database: Path) -> None:
    """Makes the tables beside and moves them into place.

    They take seconds and many transactions: a process killed meanwhile would leave a file that MLflow can
    neither use nor complete.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    unfinished = database.with_name(f".{database.name}.new")
    for leftover in database.parent.glob(f"{unfinished.name}*"):
        leftover.unlink()
    artifacts = _artifact_location(f"{_SQLITE}{database}")
    SqlAlchemyStore(f"{_SQLITE}{unfinished}", artifacts).engine.dispose()  # type: ignore[no-untyped-call]
    publish_file(unfinished, database)


def _kept_run_id(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    except (ValueError, KeyError, TypeError):
        raise RunError(
            f"{path}: holds no run_id; delete it, and a new MLflow run is filled from the journal"
        ) from None


def _artifact_location(uri: str) -> str | None:
    """Beside a SQLite store, in `mlartifacts`; elsewhere the server decides."""
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).absolute().parent / "mlartifacts").as_uri()


def _batches(records: Sequence[Record], recorded: dict[str, int]) -> Iterator[list[Any]]:
    """Metrics of whole lines, at most MLflow's limit at a time; a batch is stored wholly or not at all."""
    from mlflow.entities import Metric

    batch: list[Metric] = []
    for record in records:
        step, timestamp_ms = record["step"], int(record["time"] * 1000)
        line = [
            Metric(key, value, timestamp_ms, step)
            for key, value in measurements(record)
            if step > recorded.get(key, -1)
        ]
        if len(batch) + len(line) > _METRICS_PER_BATCH:
            yield batch
            batch = []
        batch += line
    if batch:
        yield batch


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
