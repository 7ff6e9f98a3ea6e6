import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.study.arms import Arm
from evaluation.study.design import Design
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.data.builtin import is_builtin
from parallax.data.corpus import Corpus, check_vocabulary
from parallax.errors import ConfigError, DataError
from parallax.metrics.flops import train_flops_per_token

_HASH_LETTERS = 10


@dataclass(frozen=True)
class PlannedRun:
    """One training of a study."""

    id: str
    """Hash of all that its result depends on; see `run_id`."""
    arm: str
    rate: float
    seed: int
    base: Path
    overrides: tuple[str, ...]
    """Over the base configuration; with the run's folder and name."""
    config: RunConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.dir)

    @property
    def steps(self) -> int:
        """Optimizer steps until its end."""
        assert self.config.train.max_steps is not None
        return self.config.train.max_steps

    @property
    def flops(self) -> float:
        """Operations until its end."""
        model, train = self.config.model, self.config.train
        tokens = self.steps * train.global_batch * model.max_seq_len
        return float(tokens * train_flops_per_token(model, model.max_seq_len))


def run_id(config: RunConfig, fingerprints: Mapping[str, str]) -> str:
    """A name for what a run computes: the same for the same, another for anything else.

    It is a hash of the resolved configuration without what only says where things are kept or shown; of a corpus
    it takes the fingerprint instead of the path.
    """
    settings = config.resolved()
    del settings["run"], settings["tracking"]
    settings["data"] = _named(settings["data"], fingerprints)
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LETTERS]


def _named(value: Any, fingerprints: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _named(part, fingerprints) for key, part in value.items()}
    if isinstance(value, list):
        return [_named(part, fingerprints) for part in value]
    return fingerprints.get(value, value) if isinstance(value, str) else value


def read_fingerprints(config: RunConfig, prepare: str | None) -> dict[str, str]:
    """Path -> fingerprint of the corpora that a run reads; a built-in one goes by its name.

    Raises:
        DataError: one is missing, has ids that the model does not know, or there is nothing to measure the
            validation loss on.
    """
    data = config.data
    paths = [source.path for source in data.mixture]
    paths += [data.val_path] if data.val_path is not None else []
    found = {}
    for path in paths:
        if is_builtin(path):
            continue
        try:
            corpus = Corpus.open(path)
        except DataError as error:
            raise DataError(f"{error}; the study says: {prepare}" if prepare else str(error)) from None
        check_vocabulary(corpus.meta, config.model.vocab_size)
        if path == paths[0] and data.val_path is None:
            corpus.split("val")
        found[path] = corpus.fingerprint
    return found


class Planner:
    """Makes the runs of a study: same design, same ids, in whatever folder.

    Args:
        base: run configuration that the arms begin with.
        output: folder of the study.
        fingerprints: of its corpora.
    """

    def __init__(self, base: Path, output: Path, fingerprints: Mapping[str, str]) -> None:
        self._base = base
        self._runs = output / "runs"
        self._fingerprints = fingerprints

    def beginning_with(self, base: Path) -> "Planner":
        """The same with the base configuration in another file."""
        return Planner(base, self._runs.parent, self._fingerprints)

    def run(self, arm: Arm, rate: float, seed: int) -> PlannedRun:
        """One run of an arm."""
        overrides = (*arm.overrides, f"optim.lr={rate!r}", f"seed={seed}")
        config = load_config(self._base, overrides)
        if config.train.max_steps is None:
            raise ConfigError(
                f"{self._base}: a study needs train.max_steps, so that all arms read the same tokens"
            )
        identity = run_id(config, self._fingerprints)
        name = f"{arm.name}-lr{rate:g}-seed{seed}"
        folder = self._runs / f"{name}-{identity}"
        overrides = (*overrides, f"run.name={name}", f"run.dir={folder}")
        return PlannedRun(
            identity, arm.name, rate, seed, self._base, overrides, load_config(self._base, overrides)
        )

    def tuning(self, design: Design, arms: Iterable[Arm]) -> list[PlannedRun]:
        """Every rate of every arm on the tuning seeds."""
        arms = list(arms)
        return [
            self.run(arm, rate, seed)
            for seed in design.tuning.seeds
            for arm in arms
            for rate in design.tuning.rates
        ]

    def seeds(self, design: Design, arms: Iterable[Arm], rates: Mapping[str, float]) -> list[PlannedRun]:
        """Every arm at its rate on the study's seeds, seed by seed: what is stopped halfway has whole pairs."""
        arms = list(arms)
        return [self.run(arm, rates[arm.name], seed) for seed in design.seeds for arm in arms]
