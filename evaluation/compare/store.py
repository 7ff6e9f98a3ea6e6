import difflib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.compare.compared_run import ComparedRun
from evaluation.compare.mlflow_runs import read_mlflow
from evaluation.compare.run_folders import read_folder
from parallax.errors import RunError
from parallax.metrics.sinks.message import one_line, without_password
from parallax.metrics.sinks.mlflow_run import RUN_FILE, prepare_mlflow, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_DIRECTORY = "run.dir"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MANY = 1000


def is_run_id(text: str) -> bool:
    """Whether a word has the form of MLflow's names of runs: 32 digits of base 16."""
    return _RUN_ID.fullmatch(text) is not None


def runs_of_experiment(name: str, uri: str | None) -> list[ComparedRun]:
    """The finished runs of an MLflow experiment: from their folder where it is here, else from MLflow itself.

    Where several ran in one folder of this machine, the one that it holds now counts.

    Raises:
        RunError: no such store, experiment or run in it, or a run that cannot be read.
        ConfigError: a run's parameters are not a configuration of this version.
    """
    with _opened(f"--experiment {name}", uri) as (client, shown):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise RunError(f"--experiment {name}: {shown} has none of that name{_known(client, name)}")
        found = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=_MANY)
        runs = [run for run in found if _DIRECTORY in run.data.params]
        if not runs:
            raise RunError(f"--experiment {name}: it has no finished run")
        replaced = _replaced(runs)
        read = [_read(client, run) for run in runs if run.info.run_id not in replaced]
    return sorted(read, key=lambda run: (str(run.config.run.dir), run.source))


def run_of_id(run_id: str, uri: str | None) -> ComparedRun:
    """An MLflow run: from its folder where it is here, else from MLflow itself.

    Raises:
        RunError: no such store or run in it, or it cannot be read.
        ConfigError: its parameters are not a configuration of this version.
    """
    from mlflow.exceptions import MlflowException

    with _opened(f"--runs {run_id}", uri) as (client, shown):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            every = client.search_runs(
                [one.experiment_id for one in client.search_experiments()], max_results=_MANY
            )
            near = difflib.get_close_matches(run_id, [one.info.run_id for one in every], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RunError(f"--runs {run_id}: {shown} has no such run{hint}") from None
        return _read(client, run)


@contextmanager
def _opened(asked: str, uri: str | None) -> Iterator[tuple["MlflowClient", str]]:
    """A client, and the store's name for messages, in which what the store raises is one line."""
    # Files that are read on the way are not worth a line.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    resolved = resolve_uri(uri)
    shown = without_password(resolved)
    try:
        yield MlflowClient(tracking_uri=resolved), shown
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RunError(f"{asked}: {shown}: {one_line(error)}") from None


def _read(client: "MlflowClient", run: "Run") -> ComparedRun:
    return read_folder(_folder_of(run)) if _is_here(run) else read_mlflow(client, run)


def _folder_of(run: "Run") -> Path:
    return Path(run.data.params[_DIRECTORY])


def _is_here(run: "Run") -> bool:
    """Whether its folder is, and has not become another run's."""
    if _DIRECTORY not in run.data.params or not (_folder_of(run) / "config.yaml").exists():
        return False
    kept = _folder_of(run) / RUN_FILE
    try:
        return not kept.exists() or json.loads(kept.read_text(encoding="utf-8"))["run_id"] == run.info.run_id
    except (ValueError, KeyError, TypeError):
        return False


def _replaced(runs: Sequence["Run"]) -> set[str]:
    """Runs in whose folder on this machine a later one was made."""
    owners: dict[tuple[str, str | None], str] = {}
    for run in sorted(runs, key=lambda run: int(run.info.start_time), reverse=True):
        if _is_here(run):
            owners.setdefault(_place(run), run.info.run_id)
    return {run.info.run_id for run in runs if owners.get(_place(run), run.info.run_id) != run.info.run_id}


def _place(run: "Run") -> tuple[str, str | None]:
    return run.data.params[_DIRECTORY], run.data.tags.get("host")


def _known(client: "MlflowClient", name: str) -> str:
    known = [experiment.name for experiment in client.search_experiments()]
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
