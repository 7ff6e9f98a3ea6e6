import logging
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from parallax.checkpoint.manifest import DamagedCheckpointError, is_complete, verify_checkpoint
from parallax.errors import CheckpointError

Report = Callable[[str], None]
"""Takes one line that a person should see."""

BEST_FILE = "best.json"
STEP_PATTERN = re.compile(r"step-(\d{8,})")


def log_warning(message: str) -> None:
    """The default `Report`: a warning of the logger `parallax`, which Python shows on stderr."""
    logging.getLogger("parallax").warning(message)


class BestPointer(BaseModel):
    """Content of best.json: which checkpoint had the lowest validation loss."""

    model_config = ConfigDict(frozen=True, strict=True)

    step: int
    val_loss: float
    """Nats a token."""


class CheckpointCatalogue:
    """The checkpoints of one run, for reading; any number of processes may look while one saves.

    | entry of the folder | content |
    |---|---|
    | step-00000100/ | model.safetensors, optimizer.safetensors, state.json, texts, manifest.json |
    | best.json | step and validation loss of the best one |

    Args:
        folder: `RUN/checkpoints`; may be missing.
        report: told about every damaged checkpoint that is passed over.
    """

    def __init__(self, folder: Path, report: Report = log_warning) -> None:
        self.folder = folder
        self.report = report

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, ascending; sizes are checked, contents are not."""
        return [step for step in self.all_steps() if is_complete(self.path_of(step))]

    def all_steps(self) -> list[int]:
        """The steps of all checkpoint folders, damaged ones included, ascending."""
        if not self.folder.is_dir():
            return []
        found = (STEP_PATTERN.fullmatch(path.name) for path in self.folder.iterdir())
        steps = sorted(int(match[1]) for match in found if match)
        return [step for step in steps if self.path_of(step).is_dir()]

    def path_of(self, step: int) -> Path:
        """The folder of a step's checkpoint, which may not exist."""
        return self.folder / f"step-{step:08d}"

    def newest_good(self) -> Path | None:
        """The newest checkpoint whose every byte is as saved; None: there is none.

        Raises:
            CheckpointError: the newest whole one is in a format of a newer Parallax. Going on from an older
                one instead would repeat work that is there.
        """
        for step in reversed(self.all_steps()):
            path = self.path_of(step)
            try:
                verify_checkpoint(path)
            except DamagedCheckpointError as error:
                self.report(f"passing over the damaged checkpoint {path}: {error.reason}")
            else:
                return path
        return None

    def best(self) -> Path | None:
        """The checkpoint of the lowest validation loss, verified; None: none was marked, or it is damaged.

        Raises:
            CheckpointError: best.json is damaged, or the checkpoint is in a format of a newer Parallax.
        """
        pointer = self.best_pointer()
        if pointer is None:
            return None
        path = self.path_of(pointer.step)
        try:
            verify_checkpoint(path)
        except DamagedCheckpointError as error:
            self.report(f"the best checkpoint {path} is damaged: {error.reason}")
            return None
        return path

    def best_pointer(self) -> BestPointer | None:
        """Which step was marked best, and its validation loss; None: none was.

        Raises:
            CheckpointError: best.json is damaged.
        """
        path = self.folder / BEST_FILE
        try:
            return BestPointer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise CheckpointError(
                f"{path} is damaged: expected a step and a val_loss; delete the file, and the next improvement "
                f"writes it anew"
            ) from None
