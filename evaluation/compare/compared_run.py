from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.costs import Costs, costs_of
from parallax.config.flatten import flatten
from parallax.config.run import RunConfig
from parallax.metrics.journal import Record

VAL_LOSS = "val_loss"


@dataclass(frozen=True)
class ComparedRun:
    """What is known of a run, wherever it was read."""

    source: str
    """Where it was read, for messages: a run folder's path, or `MLflow run ID`."""
    folder: Path | None
    """None: it is not on this machine."""
    config: RunConfig
    is_settled: bool
    """Whether what the configuration left to the launcher (engine, shards, precision) has its outcome in it."""
    records: list[Record]
    """The journal's lines, or those of them with a validation loss."""
    validation: tuple[str, ...]
    """What its validation loss was measured on, see `validated_on`."""
    environment: Mapping[str, str]
    """Versions, commit, host, ranks and engine it last ran with, as far as they are known."""

    @property
    def name(self) -> str:
        """As its folder is called, or as it is named where that is elsewhere."""
        return self.folder.name if self.folder else self.config.run.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Its configuration by dotted keys."""
        return flatten(self.config.resolved())

    @cached_property
    def costs(self) -> Costs:
        """Parameters, training FLOPs and KV bytes a token."""
        return costs_of(self.config.model)

    @cached_property
    def measured(self) -> list[Record]:
        """Lines with a validation loss, in the order of steps."""
        return [record for record in self.records if record.get(VAL_LOSS) is not None]

    @property
    def final(self) -> float:
        """The last validation loss, nats a token."""
        return float(self.measured[-1][VAL_LOSS])

    @property
    def best(self) -> float:
        """The lowest validation loss; chosen with the data it is measured on, so it flatters longer runs."""
        return min(float(record[VAL_LOSS]) for record in self.measured)


VALIDATED_ON = ("text (fingerprint)", "data.val_path", "train.eval_samples", "model.max_seq_len")


def validated_on(config: RunConfig, fingerprint: str) -> tuple[str, ...]:
    """The four that `VALIDATED_ON` names: the texts' fingerprint, the split's path, windows and their length."""
    return (
        fingerprint,
        config.data.val_path or "",
        str(config.train.eval_samples),
        str(config.model.max_seq_len),
    )


def commit_shown(commit: str, dirty: bool) -> dict[str, str]:
    """The source's version as a fact of the environment: twelve digits, and whether files differed from it."""
    return {"git commit": f"{commit[:12]} with changes" if dirty else commit[:12]}
