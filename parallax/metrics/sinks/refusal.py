import re

from parallax.metrics.sinks.message import one_line

_CREDENTIALS = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_HOSTS = "let the server know its name with --allowed-hosts"
_WORDS = {401: r"unauthori[sz]ed|unauthenticated|not authenticated", 403: r"forbidden|permission denied"}


def may_heal(error: Exception) -> bool:
    """Whether waiting can help: a busy or absent store, not one that says no."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if _refused_with(error) is not None:
        return False
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return bool(status >= 500 or status == 429)
    return isinstance(error, OSError | SQLAlchemyError) and not isinstance(error, FileNotFoundError)


def explain(error: Exception) -> str:
    """What a store has said, on one line; where it does not want us, with what to look at."""
    status = _refused_with(error)
    if status is None:
        return one_line(error)
    said = Exception(str(error).rpartition("Response body: ")[2].strip("'"))
    hint = _HOSTS if "Host header" in str(error) else _CREDENTIALS
    return f"refused with {status} ({one_line(said).partition(': ')[2]}); {hint}"


def _refused_with(error: Exception) -> int | None:
    """401 or 403: who asked is unknown there, or may not; else None."""
    from mlflow.exceptions import MlflowException, RestException

    if not isinstance(error, MlflowException):
        return None
    status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    if status in _WORDS:
        return status
    # A proxy before MLflow may refuse in JSON of its own, which MLflow takes for an error inside the server.
    if isinstance(error, RestException) and "error_code" not in error.json:
        return next((code for code, words in _WORDS.items() if re.search(words, str(error), re.IGNORECASE)), None)
    return None
