from collections.abc import Sequence
from pathlib import Path

from evaluation.compare.compared_run import VALIDATED_ON, ComparedRun
from evaluation.compare.run_folders import read_folder
from evaluation.compare.store import is_run_id, run_of_id, runs_of_experiment
from parallax.errors import RunError


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
        RunError: one is there twice, or two were validated on different data.
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


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    pairs = zip(VALIDATED_ON, first, second, strict=True)
    return ", ".join(f"{name} {a[:12]} and {b[:12]}" for name, a, b in pairs if a != b)
