from collections.abc import Sequence
from pathlib import Path

from evaluation.compare.compared_run import VALIDATED_ON, ComparedRun
from evaluation.compare.run_folders import read_folder
from evaluation.compare.store import is_run_id, run_of_id, runs_of_experiment
from parallax.errors import RunError

_LEFT_TO_THE_LAUNCHER = ("parallel.", "deepspeed.", "train.precision", "train.activation_checkpointing")


def load_experiment(name: str, uri: str | None) -> list[ComparedRun]:
    """Reads the finished runs of an MLflow experiment and refuses what cannot be compared.

    Raises:
        RunError, ConfigError: as `runs_of_experiment` and `check_comparable`.
    """
    runs = runs_of_experiment(name, uri)
    check_comparable(runs)
    return runs


def load_runs(given: Sequence[str | Path], uri: str | None = None) -> list[ComparedRun]:
    """Reads run folders, and MLflow runs by their id, and refuses what cannot be compared.

    Raises:
        RunError, ConfigError: as `read_folder`, `run_of_id` and `check_comparable`.
    """
    runs = [
        run_of_id(str(one), uri) if is_run_id(str(one)) and not Path(one).exists() else read_folder(Path(one))
        for one in given
    ]
    check_comparable(runs)
    return runs


def check_comparable(runs: Sequence[ComparedRun]) -> None:
    """Refuses runs that cannot be compared.

    Raises:
        RunError: one is there twice, two were validated on different data, or of a setting that one left to its
            launcher another has the outcome alone.
    """
    places = [run.folder.resolve() if run.folder else run.source for run in runs]
    for number, run in enumerate(runs):
        if places[number] in places[:number]:
            raise RunError(f"{run.source} is given twice")
        if run.validation != runs[0].validation:
            raise RunError(
                f"{runs[0].source} and {run.source} were validated on different data: "
                f"{_difference(runs[0].validation, run.validation)}; compare runs of the same"
            )
    asked = [run for run in runs if not run.is_settled]
    for run in runs:
        if run.is_settled and asked:
            _check_same_form(asked[0], run)


def _check_same_form(asked: ComparedRun, settled: ComparedRun) -> None:
    """Runs that differ in nothing else would pass for two arms."""
    for key, value in asked.settings.items():
        outcome = settled.settings.get(key)
        if key.startswith(_LEFT_TO_THE_LAUNCHER) and value in (None, "auto") and outcome != value:
            raise RunError(
                f"{settled.source} is known by its parameters alone, in which {key}={outcome} is what its "
                f"launcher made of it, and {asked.source} says {key}={value}; "
                "start where MLflow's artifacts can be read"
            )


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    pairs = zip(VALIDATED_ON, first, second, strict=True)
    return ", ".join(f"{name} {a[:12]} and {b[:12]}" for name, a, b in pairs if a != b)
