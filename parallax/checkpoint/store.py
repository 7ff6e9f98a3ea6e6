from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from parallax.checkpoint.catalogue import BEST_FILE, BestPointer, CheckpointCatalogue, Report, log_warning
from parallax.checkpoint.manifest import DamagedCheckpointError, is_complete, verify_checkpoint
from parallax.checkpoint.write import write_checkpoint
from parallax.errors import CheckpointError
from parallax.runtime.files import remove_directory, remove_leftovers, staged_directory, write_text_atomic


class CheckpointStore(CheckpointCatalogue):
    """The checkpoints of one run, for the one process that saves them; it holds the run's lock.

    A checkpoint is written beside, synced and renamed into place: at no moment can a crash leave a folder
    under a checkpoint's name that is not whole, or take one that was there.

    Args:
        folder: `RUN/checkpoints`; made by the first save.
        keep_last: how many of the newest complete checkpoints stay. The best one stays as well, and so does
            the one just written.
        report: told about damaged checkpoints, and about what could not be deleted.
        fence: called before anything gets or loses its name, which it forbids by raising; see `RunLock.check`.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int,
        report: Report = log_warning,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(folder, report)
        self._fence = fence
        if keep_last < 1:
            raise ValueError(f"keep_last={keep_last} must be at least 1")
        self.keep_last = keep_last

    def save(
        self,
        step: int,
        *,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        texts: Mapping[str, str],
    ) -> Path:
        """Saves a checkpoint, then deletes those that need not be kept.

        A good checkpoint of the same step is left as it is; a damaged one is replaced.

        Args:
            step: optimizer steps done.
            weights: by unsharded parameter name; tied ones may come under each of their names.
            optimizer: see `optimizer_tensors`.
            state: everything else a resumption needs, as JSON values.
            texts: file name -> content, such as config.yaml and tokenizer.json.

        Returns:
            The checkpoint's folder.

        Raises:
            DiskFullError: there was no room; all earlier checkpoints are untouched.
            FencedError: the run belongs to another process by now.
        """
        path = self.path_of(step)
        if self.holds(step):
            return path
        with staged_directory(path, replace=True, fence=self._fence) as staging:
            write_checkpoint(staging, step, weights=weights, optimizer=optimizer, state=state, texts=texts)
        self.prune(written=step)
        return path

    def holds(self, step: int) -> bool:
        """Whether a good checkpoint of the step is there; a damaged one is reported, as about to be replaced."""
        path = self.path_of(step)
        if not path.exists():
            return False
        try:
            verify_checkpoint(path)
        except DamagedCheckpointError as error:
            self.report(f"replacing the damaged checkpoint {path}: {error.reason}")
            return False
        return True

    def mark_best(self, step: int, val_loss: float) -> None:
        """Notes that the checkpoint of `step` has the lowest validation loss so far, and lets the former go.

        Args:
            step: saved before.
            val_loss: nats a token.

        Raises:
            ValueError: there is no complete checkpoint of that step.
            DiskFullError: there was no room for the note; the old one is untouched.
        """
        if not is_complete(self.path_of(step)):
            raise ValueError(f"step {step} has no complete checkpoint to mark as the best")
        self._fence()
        pointer = BestPointer(step=step, val_loss=val_loss)
        write_text_atomic(self.folder / BEST_FILE, pointer.model_dump_json() + "\n")
        self.prune(written=step)

    def clear_leftovers(self) -> None:
        """Deletes what a killed process left half-written. Call it once, under the run's lock, before saving."""
        for name in remove_leftovers(self.folder):
            self.report(f"deleted {self.folder / name}, which an interrupted run left unfinished")

    def prune(self, written: int) -> None:
        """Deletes what is older than the newest `keep_last` complete checkpoints, except best and `written`.

        Damaged ones are not counted, and go only when that many complete ones are newer.
        """
        self._fence()
        complete = self.steps()
        if len(complete) < self.keep_last:
            return
        try:
            best = self.best_pointer()
        except CheckpointError as error:
            self.report(f"no old checkpoint is deleted, since the best one is unknown: {error}")
            return
        kept = {written} if best is None else {written, best.step}
        for step in self.all_steps():
            if step < complete[-self.keep_last] and step not in kept:
                self._delete(self.path_of(step))

    def _delete(self, path: Path) -> None:
        try:
            remove_directory(path)
        except OSError as error:
            # The save itself went well; a run does not end over a folder that will not go away.
            self.report(f"{path} is no longer needed and could not be deleted: {error}")
