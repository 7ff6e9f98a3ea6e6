from pathlib import Path

from parallax.checkpoint.load import Checkpoint, read_checkpoint
from parallax.checkpoint.locate import find_checkpoint
from parallax.checkpoint.manifest import MANIFEST_FILE
from parallax.checkpoint.model_folder import is_model_folder
from parallax.checkpoint.write import write_checkpoint
from parallax.errors import CheckpointError
from parallax.runtime.files import staged_directory


def convert_checkpoint(path: str | Path, output: Path) -> Checkpoint:
    """Writes a checkpoint of any layout as one process would have saved it: whole tensors, in two files.

    One of the two files' tensors are in memory at a time.

    Args:
        path: a checkpoint, a run folder, or RUN/best.
        output: the folder to make.

    Returns:
        What was converted.

    Raises:
        CheckpointError: there is no good checkpoint, or `output` exists; nothing was overwritten.
        DiskFullError: there was no room.
    """
    if output.exists():
        raise _exists(output)
    folder = find_checkpoint(path)
    if is_model_folder(folder) or not (folder / MANIFEST_FILE).exists():
        raise CheckpointError(f"{folder} is a model folder, whole already; name a run or a checkpoint in it")
    found = read_checkpoint(folder, verify=False)
    try:
        with staged_directory(output) as staging:
            write_checkpoint(
                staging,
                found.step,
                weights=found.weights,
                optimizer=found.optimizer,
                state=found.state,
                texts=found.texts,
            )
    except FileExistsError:
        raise _exists(output) from None
    return found


def _exists(output: Path) -> CheckpointError:
    return CheckpointError(
        f"{output} exists; nothing was overwritten: choose another --output, or remove it first"
    )
