import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from evaluation.compare.compared_run import VAL_LOSS, ComparedRun, commit_shown, validated_on
from parallax.config.load import check_config
from parallax.config.run import RunConfig
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import RunError
from parallax.metrics.journal import Record
from parallax.metrics.sinks.mlflow_run import CONFIG_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_CHANGED = "changed."
_FINGERPRINT = "data.fingerprint"
_ENGINE = "parallel.engine"
_COSTS = ("tokens", "flops", "seconds")


def read_mlflow(client: "MlflowClient", run: "Run") -> ComparedRun:
    """What MLflow itself knows of a run, without its folder: configuration, validation losses and tags.

    The configuration is the kept config.yaml, as in the folder; where that is out of reach, the parameters.

    Raises:
        ConfigError: neither is a configuration of this version.
        RunError: something that a comparison needs is missing.
    """
    source = f"MLflow run {run.info.run_id}"
    tags = run.data.tags
    kept = _kept_config(client, run, source)
    config = kept or _config_of_params(run, source)
    if _FINGERPRINT not in tags:
        raise RunError(
            f"{source}: it has no tag {_FINGERPRINT}, which says what it was validated on; "
            "compare its run folder where that is, with --runs"
        )
    return ComparedRun(
        source=source,
        folder=None,
        config=config,
        is_settled=kept is None,
        records=_records(client, run, source),
        validation=validated_on(config, tags[_FINGERPRINT]),
        environment=_environment(run),
    )


def _kept_config(client: "MlflowClient", run: "Run", source: str) -> RunConfig | None:
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as folder:
        try:
            path = Path(client.download_artifacts(run.info.run_id, CONFIG_FILE, folder))
            text = path.read_text(encoding="utf-8")
        except (MlflowException, OSError):
            # Beside a SQLite store they lie in a folder of the machine that made it.
            return None
    return check_config(parse_yaml(text, source), source)


def _config_of_params(run: "Run", source: str) -> RunConfig:
    params = dict(run.data.params)
    if not params:
        raise RunError(f"{source}: it has no parameters, so no training of Parallax made it")
    # Parameters never change in MLflow; what a restart changed is told in tags.
    tags = run.data.tags.items()
    params |= {key.removeprefix(_CHANGED): text for key, text in tags if key.startswith(_CHANGED)}
    return config_from(params, source)


def config_from(params: Mapping[str, str], source: str) -> RunConfig:
    """The configuration that was logged as flat texts: JSON, but for texts, which stand as they are.

    A text such as a run named `7` reads as another type; where the setting wants a text, it is one.

    Raises:
        ConfigError: as `check_config`.
    """
    values = {key: _value(text) for key, text in params.items()}
    try:
        return RunConfig.model_validate(_nested(values))
    except ValidationError as error:
        wanted = {".".join(map(str, e["loc"])) for e in error.errors() if e["type"] == "string_type"}
    return check_config(_nested(values | {key: params[key] for key in wanted & params.keys()}), source)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return nested


def _records(client: "MlflowClient", run: "Run", source: str) -> list[Record]:
    """Lines of the journal that have a validation loss."""
    series = {
        key: {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, key)}
        for key in (VAL_LOSS, *_COSTS)
    }
    steps = sorted(series[VAL_LOSS])
    if not steps:
        raise RunError(f"{source}: it has no val_loss; compare it once it has been validated")
    for key in _COSTS:
        missing = [step for step in steps if step not in series[key]]
        if missing:
            raise RunError(
                f"{source}: it has a val_loss of step {missing[0]} and no {key}; "
                "where its folder is, `parallax track sync` sends what is missing"
            )
    return [{"step": step, **{key: values[step] for key, values in series.items()}} for step in steps]


def _environment(run: "Run") -> dict[str, str]:
    tags, params = run.data.tags, run.data.params
    known = {key: tags[key] for key in ("python", "parallax", "torch", "host") if key in tags}
    commit = commit_shown(tags["git.commit"], tags.get("git.dirty") == "true") if "git.commit" in tags else {}
    # The parameters have what a launcher made of `auto`.
    engine = {"engine": params[_ENGINE]} if _ENGINE in params else {}
    return known | engine | commit
