import difflib
import json
from pathlib import Path

from evaluation.compare.compared_run import VAL_LOSS, ComparedRun, commit_shown, validated_on
from parallax.checkpoint.catalogue import CheckpointCatalogue
from parallax.checkpoint.locate import CHECKPOINTS_FOLDER
from parallax.checkpoint.manifest import read_manifest
from parallax.checkpoint.write import STATE_FILE
from parallax.errors import RunError
from parallax.metrics.journal import read_journal
from parallax.train.run_folder import RunFolder


def read_folder(path: Path) -> ComparedRun:
    """Reads a run folder without disturbing its run.

    Raises:
        RunError: there is no run, it has no validation loss or no checkpoint yet, or its journal is damaged.
    """
    folder = RunFolder(path)
    config = folder.existing_config(_nearest(path))
    records = read_journal(folder.journal)
    if not any(record.get(VAL_LOSS) is not None for record in records):
        raise RunError(f"{path}: its journal has no val_loss yet; compare it once it has been validated")
    catalogue = CheckpointCatalogue(path / CHECKPOINTS_FOLDER)
    steps = catalogue.steps()
    if not steps:
        raise RunError(f"{path}: it has no checkpoint, which says what it was validated on; let it save one")
    checkpoint = catalogue.path_of(steps[-1])
    texts = json.loads((checkpoint / STATE_FILE).read_bytes())["corpus"]
    return ComparedRun(
        source=str(path),
        folder=path,
        config=config,
        is_settled=False,
        records=records,
        validation=validated_on(config, str(texts)),
        environment=read_manifest(checkpoint).libraries | _last_start(path / "events.jsonl"),
    )


def _last_start(events: Path) -> dict[str, str]:
    starts = [event for event in read_journal(events) if event.get("event") in ("start", "resume")]
    if not starts:
        return {}
    last = starts[-1]
    facts = {key: str(last[key]) for key in ("host", "ranks", "engine") if key in last}
    return facts | (commit_shown(last["git_commit"], last["git_dirty"]) if "git_commit" in last else {})


def _nearest(path: Path) -> str:
    parent = path.parent
    names = (
        [entry.name for entry in parent.iterdir() if (entry / "config.yaml").exists()] if parent.is_dir() else []
    )
    near = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {parent / near[0]}?" if near else ""
