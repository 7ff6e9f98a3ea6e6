import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.costs import Costs, costs_of
from evaluation.study.baselines import deviation, solve_baseline
from evaluation.study.design import Design
from parallax.config.load import load_config
from parallax.config.models.base import ModelConfig
from parallax.config.models.dual_track import DualTrackConfig
from parallax.config.run import RunConfig
from parallax.errors import ConfigError


@dataclass(frozen=True)
class Arm:
    """One of the things compared: the base configuration with some overrides."""

    name: str
    overrides: tuple[str, ...]
    config: RunConfig
    also: tuple[str, ...] = ()
    """Further names of the study's for a model that computes the same."""
    match: str | None = None
    """Of a baseline, the cost that equals the reference's."""
    deviation: float = 0.0
    """What is left between the two, as a share."""

    @property
    def costs(self) -> Costs:
        """Of its model."""
        return costs_of(self.config.model)


def build_arms(design: Design, base: Path) -> dict[str, Arm]:
    """All arms of a study by their name; those that compute the same are one, under the name that comes first.

    Raises:
        ConfigError: an override or a baseline makes no sense; the message names the arm.
    """
    arms = [_arm(base, name, overrides) for name, overrides in design.cells.items()]
    reference = design.cells[design.reference]
    model = next(arm for arm in arms if arm.name == design.reference).config.model
    for name, baseline in design.baselines.items():
        found = solve_baseline(
            name,
            baseline,
            model,
            lambda changed, name=name: _arm(base, name, reference | changed).config.model,  # type: ignore[misc]
        )
        arm = _arm(base, name, reference | found)
        left = deviation(arm.config.model, model, baseline.match)
        arms.append(replace(arm, match=baseline.match, deviation=left))
    return _merged(arms)


def resolve(arms: Mapping[str, Arm], name: str) -> Arm:
    """The arm that a name of the study's means."""
    return arms[name] if name in arms else next(arm for arm in arms.values() if name in arm.also)


def to_overrides(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """`key=value` as on a command line."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items())


def _arm(base: Path, name: str, settings: Mapping[str, Any]) -> Arm:
    overrides = to_overrides(settings)
    try:
        return Arm(name, overrides, load_config(base, overrides))
    except ConfigError as error:
        raise ConfigError(f"arm {name}: {error}") from None


def _merged(arms: list[Arm]) -> dict[str, Arm]:
    kept: dict[str, Arm] = {}
    by_meaning: dict[str, str] = {}
    for arm in arms:
        meaning = _meaning(arm.config)
        if meaning in by_meaning:
            first = kept[by_meaning[meaning]]
            kept[first.name] = replace(first, also=(*first.also, arm.name))
        else:
            by_meaning[meaning] = arm.name
            kept[arm.name] = arm
    return kept


def _meaning(config: RunConfig) -> str:
    """Equal for arms that train the same: what acts between passes means nothing where there is one pass."""
    settings = config.resolved()
    settings["model"] |= _between_passes(config.model)
    del settings["run"], settings["tracking"]
    return json.dumps(settings, sort_keys=True)


def _between_passes(model: ModelConfig) -> dict[str, bool]:
    if not isinstance(model, DualTrackConfig) or model.num_loops == 1:
        return {"use_swap": False, "reinject": False}
    # The only track is its own neighbour.
    return {"use_swap": model.use_swap and model.num_tracks > 1, "reinject": model.reinjects}
