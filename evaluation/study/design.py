import difflib
import itertools
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evaluation.compare.curves import Axis
from parallax.config.load import check_settings, known_keys, read_settings_file
from parallax.config.section import Section, of_form
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import ConfigError

MIN_SEEDS = 5
"""With fewer paired seeds a t-test sees only differences of several standard deviations."""

_OF_THE_STUDY = ("run.", "seed", "optim.lr", "tracking.")

ArmName = Annotated[
    str, of_form(r"[A-Za-z0-9][A-Za-z0-9+_.-]*", "a name for folders: letters, digits and + - _ . after the first")
]
Overrides = dict[str, Any]
"""Dotted keys of a run's configuration and their values, as on the command line."""


class Tuning(Section):
    """The search for each arm's learning rate: every arm gets the same rates and seeds, so the same budget."""

    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(strict=False, min_length=1)]
    """Peak learning rates tried in every arm; at least three show whether the best one is inside."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    """Seeds each rate is tried on. One that is among the study's seeds is not trained a second time."""


class Baseline(Section):
    """An arm made from the reference arm, such that one cost is equal."""

    match: Literal["parameters", "flops", "kv_bytes"]
    """What is made equal: all parameters, training FLOPs a token, or bytes of the KV cache a token."""
    solve: Literal["num_layers", "num_loops", "intermediate_size", "hidden_size"] = "num_layers"
    """The key of the model that is changed until it is."""
    overrides: Overrides = Field(default_factory=dict)
    """What else differs from the reference; `model.num_tracks: 1` unless stated."""


class Power(Section):
    """What the study can be expected to see, said before it is run."""

    smallest_effect: Annotated[float, Field(gt=0)]
    """The smallest difference in validation loss that would matter, nats a token."""
    paired_sd: Annotated[float, Field(gt=0)]
    """Standard deviation over seeds of the difference between two arms, assumed or from a pilot, nats a token."""
    source: Annotated[str, Field(min_length=1)]
    """Where that deviation comes from."""


class Design(Section):
    """A study file: what is compared, over which seeds, and what is held to be worth seeing."""

    title: Annotated[str, Field(min_length=1)]
    """Heading of the report."""
    question: Annotated[str, Field(min_length=1)]
    """What the study is to answer, in a sentence."""
    base: Annotated[str, Field(min_length=1)]
    """Run configuration that all arms begin with; relative to the study file."""
    prepare: str | None = None
    """Command that makes the corpus, for whoever has not got it."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)]
    """At least five; every arm is trained on each, so that differences are taken within a seed."""
    tuning: Tuning
    factors: dict[str, dict[ArmName, Overrides]] = Field(default_factory=dict)
    """Factor -> level -> overrides; every combination of levels is an arm, named by its levels."""
    arms: dict[ArmName, Overrides] = Field(default_factory=dict)
    """Further arms."""
    reference: ArmName
    """The arm that baselines are made from."""
    baselines: dict[ArmName, Baseline] = Field(default_factory=dict)
    comparisons: Annotated[
        tuple[Annotated[tuple[ArmName, ArmName], Field(strict=False)], ...], Field(strict=False, min_length=1)
    ]
    """Pairs of arms that the study is about; the correction for many comparisons is over these."""
    by: Axis = "tokens"
    """What quality is set against."""
    power: Power
    hours_per_run: Annotated[float, Field(gt=0)] = 1.0
    """A run that takes longer is stopped; it can go on from its checkpoint."""

    @property
    def cells(self) -> dict[str, Overrides]:
        """The combinations of the factors' levels and the further arms, by name."""
        cells: dict[str, Overrides] = {}
        for levels in itertools.product(*(factor.items() for factor in self.factors.values())):
            if levels:
                merged = {key: value for _, overrides in levels for key, value in overrides.items()}
                cells["-".join(name for name, _ in levels)] = merged
        return cells | self.arms

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_seeds(self.seeds)
        _check_distinct("tuning.rates", self.tuning.rates)
        _check_distinct("tuning.seeds", self.tuning.seeds)
        arms = [*self.cells, *self.baselines]
        _check_distinct("arms", arms)
        _check_arm("reference", self.reference, list(self.cells))
        for pair in self.comparisons:
            for name in pair:
                _check_arm("comparisons", name, arms)
            if pair[0] == pair[1]:
                raise ValueError(f"comparisons: {pair[0]} is compared with itself")
        given = [
            *(("factors", overrides) for factor in self.factors.values() for overrides in factor.values()),
            *(("arms", overrides) for overrides in self.arms.values()),
            *(("baselines", baseline.overrides) for baseline in self.baselines.values()),
        ]
        for section, overrides in given:
            for key in overrides:
                if key.startswith(_OF_THE_STUDY):
                    raise ValueError(f"{section}: {key} is set by the study itself; take it out")
        return self


def load_design(path: str | Path) -> Design:
    """Reads and checks a study file.

    Raises:
        ConfigError: one line naming the key, the value and what was expected.
    """
    path = Path(path)
    raw = parse_yaml(read_settings_file(path, "study"), source=str(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected keys such as `seeds:` and `factors:`, found {raw!r}")
    return check_settings(Design, raw, str(path), _nearest_key)


def _nearest_key(location: str) -> str:
    section, _, name = location.rpartition(".")
    # Below `baselines` stands a name of the study's own.
    known = [*known_keys(Design), *(f"baselines.N.{key}" for key in Baseline.model_fields)]
    parts = section.split(".")
    if parts[0] == "baselines" and len(parts) == 2:
        section = "baselines.N"
    siblings = [key.rpartition(".")[2] for key in known if key.rpartition(".")[0] == section]
    near = difflib.get_close_matches(name, siblings, 1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(siblings)}"


def _check_seeds(seeds: tuple[int, ...]) -> None:
    _check_distinct("seeds", seeds)
    if len(seeds) < MIN_SEEDS:
        raise ValueError(f"seeds={list(seeds)}: {len(seeds)} are too few for a verdict; give {MIN_SEEDS} or more")


def _check_distinct(key: str, values: tuple[Any, ...] | list[str]) -> None:
    twice = [value for value in values if list(values).count(value) > 1]
    if twice:
        raise ValueError(f"{key}: {twice[0]} is there twice")


def _check_arm(key: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"arms: {', '.join(known)}"
        raise ValueError(f"{key}: no arm {name!r}; {hint}")
