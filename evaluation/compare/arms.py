from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

from evaluation.compare.compared_run import ComparedRun
from parallax.errors import RunError

_OF_THE_RUN = ("run.", "seed", "tracking.")


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone."""

    name: str
    runs: tuple[ComparedRun, ...]
    """One for each seed, in the order of seeds."""

    @property
    def finals(self) -> dict[int, float]:
        """Seed -> last validation loss."""
        return {run.config.seed: run.final for run in self.runs}

    @property
    def mean_final(self) -> float:
        """Over seeds."""
        return mean(self.finals.values())

    @property
    def mean_best(self) -> float:
        """Of the lowest validation losses, over seeds."""
        return mean(run.best for run in self.runs)


def make_arm(name: str, runs: Sequence[ComparedRun]) -> Arm:
    """An arm of given runs.

    Raises:
        RunError: a seed is there twice, or two runs differ in more than their seed.
    """
    ordered = tuple(sorted(runs, key=lambda run: run.config.seed))
    for before, run in pairwise(ordered):
        if before.config.seed == run.config.seed:
            raise RunError(f"{name}: {before.source} and {run.source} have the same seed {run.config.seed}")
        if identity(before) != identity(run):
            keys = ", ".join(sorted(differing([before, run])))
            raise RunError(f"{name}: {before.source} and {run.source} differ in more than their seed: {keys}")
    return Arm(name, ordered)


def group(runs: Sequence[ComparedRun]) -> list[Arm]:
    """Arms of runs that differ in their seed alone, named by the settings that tell them apart.

    Raises:
        RunError: all runs differ in their seed alone, or as `make_arm`.
    """
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(identity(run).items())), []).append(run)
    if len(groups) < 2:
        raise RunError("the runs differ in their seed alone: there is nothing to compare; add others")
    told_apart = sorted(differing([members[0] for members in groups.values()]))
    arms = []
    for members in groups.values():
        settings = members[0].settings
        name = " ".join(f"{key.rpartition('.')[2]}={_plain(settings[key])}" for key in told_apart)
        arms.append(make_arm(name, members))
    return arms


def identity(run: ComparedRun) -> dict[str, Any]:
    """All settings but its seed, name, place and trackers."""
    return {key: value for key, value in run.settings.items() if not key.startswith(_OF_THE_RUN)}


def differing(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Key -> each run's value, of the settings in which some runs differ."""
    all_settings = [identity(run) for run in runs]
    keys = {key for settings in all_settings for key in settings}
    table = {key: [settings.get(key) for settings in all_settings] for key in keys}
    return {key: values for key, values in sorted(table.items()) if any(value != values[0] for value in values)}


def environments(arms: Sequence[Arm]) -> Mapping[str, list[str]]:
    """Version, commit, host, ranks or engine -> the values that occur in each arm, where not all runs have one."""
    keys = sorted({key for arm in arms for run in arm.runs for key in run.environment})
    table = {key: [sorted({run.environment.get(key, "-") for run in arm.runs}) for arm in arms] for key in keys}
    several = {key: values for key, values in table.items() if len({one for arm in values for one in arm}) > 1}
    return {key: [", ".join(arm) for arm in values] for key, values in several.items()}


def _plain(value: Any) -> str:
    return (
        f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    )
