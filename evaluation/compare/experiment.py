import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from parallax.errors import RunError
from parallax.metrics.sinks.message import one_line, without_password
from parallax.metrics.sinks.mlflow_run import prepare_mlflow, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DIRECTORY = "run.dir"


def runs_of_experiment(name: str, uri: str | None) -> list[Path]:
    """Run folders of an MLflow experiment's finished runs, as their parameter `run.dir` names them.

    Raises:
        RunError: no such store, experiment or run in it, or a folder that is not on this machine.
    """
    prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = resolve_uri(uri)
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise RunError(
                f"--experiment {name}: {without_password(uri)} has none of that name{_known(client, name)}"
            )
        found = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=1000)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RunError(f"--experiment {name}: {without_password(uri)}: {one_line(error)}") from None
    named = [run.data.params[_DIRECTORY] for run in found if _DIRECTORY in run.data.params]
    if not named:
        raise RunError(f"--experiment {name}: it has no finished run")
    folders = sorted({Path(text) for text in named})
    for folder in folders:
        if not folder.is_dir():
            raise RunError(
                f"--experiment {name}: {folder} is not here; start where the runs were started, or use --runs"
            )
    return folders


def _known(client: "MlflowClient", name: str) -> str:
    known = [experiment.name for experiment in client.search_experiments()]
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
