from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parallax.checkpoint.catalogue import CheckpointCatalogue
from parallax.checkpoint.manifest import DamagedCheckpointError, check_outline, verify_checkpoint
from parallax.checkpoint.write import TENSORS_SUFFIX
from parallax.errors import CheckpointError


@dataclass(frozen=True)
class Found:
    """One checkpoint of a run, as far as it was looked at."""

    step: int
    path: Path
    size_bytes: int
    """Of all its files; 0 where the manifest cannot be read."""
    num_writers: int
    """The ranks whose files it consists of."""
    is_best: bool
    problem: str | None
    """Why it cannot be used; None: nothing was found."""


def survey(catalogue: CheckpointCatalogue, *, contents: bool) -> Iterator[Found]:
    """All checkpoints of a run, ascending.

    Args:
        catalogue: of the run.
        contents: whether every byte is read and compared; False: manifests and sizes only.

    Raises:
        CheckpointError: best.json is damaged.
    """
    best = catalogue.best_pointer()
    for step in catalogue.all_steps():
        path = catalogue.path_of(step)
        size_bytes, num_writers, problem = 0, 0, None
        try:
            manifest = verify_checkpoint(path) if contents else check_outline(path)
        except DamagedCheckpointError as error:
            problem = error.reason
        except CheckpointError as error:
            problem = str(error)
        else:
            size_bytes = sum(record.size_bytes for record in manifest.files.values())
            num_writers = len({_writer(name) for name in manifest.files if name.endswith(TENSORS_SUFFIX)})
        yield Found(step, path, size_bytes, num_writers, best is not None and best.step == step, problem)


def _writer(file: str) -> str:
    """What follows `model` or `optimizer` in a file's name: nothing, or the rank."""
    return file.removesuffix(TENSORS_SUFFIX).partition("-")[2]
