import difflib
from pathlib import Path

from parallax.checkpoint.catalogue import STEP_PATTERN, CheckpointCatalogue, Report, log_warning
from parallax.checkpoint.manifest import MANIFEST_FILE, read_manifest, verify_checkpoint
from parallax.checkpoint.model_folder import is_model_folder
from parallax.errors import CheckpointError

CHECKPOINTS_FOLDER = "checkpoints"
_BEST = "best"


def find_checkpoint(path: str | Path, *, verify: bool = True, report: Report = log_warning) -> Path:
    """The folder of the checkpoint, or of the model without a run, that a person means by `path`.

    | path | checkpoint |
    |---|---|
    | RUN/checkpoints/step-00000100, or any folder with a manifest.json | that one |
    | a model folder: imported, exported or Llama's, with a config.json | that one |
    | RUN or RUN/checkpoints | the newest good one |
    | RUN/best or RUN/checkpoints/best | the one of the lowest validation loss |

    Args:
        path: see above.
        verify: whether a checkpoint that is named itself is read and compared with its manifest; the other
            kinds always are.
        report: told about every damaged checkpoint that is passed over.

    Raises:
        CheckpointError: there is no such path, no checkpoint in it, or the one it names is damaged or in a
            newer format.
    """
    path = Path(path)
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file; name the checkpoint's folder, {path.parent}, or the run folder; a file of weights "
            f"from elsewhere is made one by parallax import"
        )
    if (path / MANIFEST_FILE).exists() or (path.is_dir() and STEP_PATTERN.fullmatch(path.name)):
        if verify:
            verify_checkpoint(path)
        else:
            read_manifest(path)
        return path
    if is_model_folder(path):
        return path
    if path.is_dir():
        return _newest(path, report)
    if path.name == _BEST and path.parent.is_dir():
        return _best(path.parent, report)
    raise CheckpointError(f"{path}: no such checkpoint or run folder{_nearest(path)}")


def _newest(path: Path, report: Report) -> Path:
    catalogue = _catalogue(path, report)
    found = catalogue.newest_good()
    if found is not None:
        return found
    damaged = len(catalogue.all_steps())
    if damaged:
        raise CheckpointError(
            f"{path} holds no good checkpoint: all {damaged} are damaged; restore one from a copy"
        )
    raise CheckpointError(
        f"{path} holds no checkpoint; expected RUN, RUN/checkpoints, "
        f"RUN/checkpoints/step-… or a model folder with a config.json"
    )


def _best(path: Path, report: Report) -> Path:
    found = _catalogue(path, report).best()
    if found is None:
        raise CheckpointError(
            f"{path} holds no good checkpoint marked as the best; name {path} for its newest good one"
        )
    return found


def _catalogue(path: Path, report: Report) -> CheckpointCatalogue:
    inner = path / CHECKPOINTS_FOLDER
    return CheckpointCatalogue(inner if inner.is_dir() else path, report)


def _nearest(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, 1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
