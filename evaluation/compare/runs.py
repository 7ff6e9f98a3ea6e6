import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluation.costs import Costs, costs_of
from parallax.checkpoint.catalogue import CheckpointCatalogue
from parallax.checkpoint.locate import CHECKPOINTS_FOLDER
from parallax.checkpoint.manifest import read_manifest
from parallax.checkpoint.write import STATE_FILE
from parallax.config.flatten import flatten
from parallax.config.run import RunConfig
from parallax.errors import RunError
from parallax.metrics.journal import Record, read_journal
from parallax.train.run_folder import RunFolder

_VAL_LOSS = "val_loss"


@dataclass(frozen=True)
class ComparedRun:
    """What a run folder says of its run."""

    path: Path
    config: RunConfig
    records: list[Record]
    validation: tuple[str, ...]
    """What its validation loss was measured on: fingerprint of the texts, path of the split, windows, length."""
    environment: Mapping[str, str]
    """Versions, host, ranks and engine it last ran with."""

    @property
    def name(self) -> str:
        """As its folder is called."""
        return self.path.name

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
        return [record for record in self.records if record.get(_VAL_LOSS) is not None]

    @property
    def final(self) -> float:
        """The last validation loss, nats a token."""
        return float(self.measured[-1][_VAL_LOSS])

    @property
    def best(self) -> float:
        """The lowest validation loss; chosen with the data it is measured on, so it flatters longer runs."""
        return min(float(record[_VAL_LOSS]) for record in self.measured)


def load_run(path: Path) -> ComparedRun:
    """Reads a run folder without disturbing its run.

    Raises:
        RunError: there is no run, it has no validation loss or no checkpoint yet, or its journal is damaged.
    """
    folder = RunFolder(path)
    config = folder.existing_config(_nearest(path))
    records = read_journal(folder.journal)
    if not any(record.get(_VAL_LOSS) is not None for record in records):
        raise RunError(f"{path}: its journal has no val_loss yet; compare it once it has been validated")
    catalogue = CheckpointCatalogue(path / CHECKPOINTS_FOLDER)
    steps = catalogue.steps()
    if not steps:
        raise RunError(f"{path}: it has no checkpoint, which says what it was validated on; let it save one")
    checkpoint = catalogue.path_of(steps[-1])
    texts = json.loads((checkpoint / STATE_FILE).read_bytes())["corpus"]
    val = [config.data.val_path or "", config.train.eval_samples, config.model.max_seq_len]
    return ComparedRun(
        path,
        config,
        records,
        (str(texts), *map(str, val)),
        read_manifest(checkpoint).libraries | _last_start(path / "events.jsonl"),
    )


def load_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """Reads run folders and refuses what cannot be compared.

    Raises:
        RunError: as `load_run`; one is given twice; or two were validated on different data.
    """
    runs = [load_run(path) for path in paths]
    for number, run in enumerate(runs):
        if run.path.resolve() in [other.path.resolve() for other in runs[:number]]:
            raise RunError(f"{run.path} is given twice")
        if run.validation != runs[0].validation:
            raise RunError(
                f"{runs[0].path} and {run.path} were validated on different data: "
                f"{_difference(runs[0].validation, run.validation)}; compare runs of the same"
            )
    return runs


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    names = ("text (fingerprint)", "data.val_path", "train.eval_samples", "model.max_seq_len")
    pairs = zip(names, first, second, strict=True)
    return ", ".join(f"{name} {a[:12]} and {b[:12]}" for name, a, b in pairs if a != b)


def _last_start(events: Path) -> dict[str, str]:
    if not events.exists():
        return {}
    starts = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    starts = [event for event in starts if event["event"] in ("start", "resume")]
    return (
        {key: str(starts[-1][key]) for key in ("host", "ranks", "engine") if key in starts[-1]} if starts else {}
    )


def _nearest(path: Path) -> str:
    parent = path.parent
    names = (
        [entry.name for entry in parent.iterdir() if (entry / "config.yaml").exists()] if parent.is_dir() else []
    )
    near = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {parent / near[0]}?" if near else ""
