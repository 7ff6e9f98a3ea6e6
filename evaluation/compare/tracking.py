from pathlib import Path

from evaluation.compare.comparison import Comparison
from parallax.errors import RunError
from parallax.metrics.sinks.message import one_line, without_password
from parallax.metrics.sinks.mlflow_run import resolve_uri

_NAME = "comparison"


def log_comparison(comparison: Comparison, folder: Path, experiment: str, uri: str | None) -> None:
    """Keeps a written comparison as a run of the experiment: report and pictures as artifacts, verdicts as tags.

    The same comparison is kept once.

    Raises:
        RunError: the store refuses it; the folder is there all the same.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = resolve_uri(uri)
    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise RunError(f"--experiment {experiment} is gone; the comparison is in {folder}")
        known = client.search_runs([found.experiment_id], f"tags.`comparison.sha256` = '{comparison.digest}'")
        if known:
            return
        tags = {"comparison.sha256": comparison.digest, "comparison.title": comparison.title}
        tags |= {f"verdict.{n}": str(verdict)[:5000] for n, verdict in enumerate(comparison.verdicts, 1)}
        run_id = client.create_run(found.experiment_id, tags=tags, run_name=_NAME).info.run_id
        client.log_artifacts(run_id, str(folder))
        client.set_terminated(run_id)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RunError(
            f"{without_password(uri)} did not take the comparison, which is in {folder}: {one_line(error)}"
        ) from None
