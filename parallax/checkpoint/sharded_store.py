from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from parallax.checkpoint.agree import on_all_ranks, on_first_rank
from parallax.checkpoint.background import Background
from parallax.checkpoint.catalogue import CheckpointCatalogue, Report, log_warning
from parallax.checkpoint.manifest import DamagedCheckpointError, check_outline, verify_files
from parallax.checkpoint.piece_writer import write_pieces
from parallax.checkpoint.snapshot import Snapshots, written_here
from parallax.checkpoint.store import CheckpointStore
from parallax.checkpoint.write import checkpoint_texts
from parallax.runtime.piece import Piece

Pieces = Mapping[str, Piece]


class ShardedStore(CheckpointCatalogue):
    """The checkpoints of one run, saved by all its ranks; the first holds the run's lock.

    All methods but those of the catalogue that only look (`steps`, `path_of`, …) are collective: every rank
    calls them in the same order, and an error on one is an error on all. One process saves the one-process
    form (ADR 9); both forms are read by any number of ranks.

        group = dist.new_group(backend="gloo", timeout=timedelta(minutes=30))  # for checkpoints alone
        store = ShardedStore(folder, keep_last=3, group=group)
        store.clear_leftovers()
        newest = store.newest_good()  # every file verified, by all ranks together
        if newest is not None:
            load_pieces(newest, dict(engine.placement.pieces(engine.model)), group=group)
        ...
        store.start_save(step, pieces=…, optimizer_pieces=…, state=…, texts=…)  # a copy; training goes on
        store.finish()  # before the run ends: the last one is committed, or its error raised

    Args:
        folder: `RUN/checkpoints`, on a file system that all ranks see; made by the first save.
        keep_last: see `CheckpointStore`.
        group: all ranks over a CPU backend, for checkpoints alone, since a save talks from a thread of its own;
            its timeout must be longer than the slowest rank writes. None: one process.
        report: told what a person should see, from that thread too; give other ranks than the first one that
            says nothing.
        fence: see `CheckpointStore`; called on the first rank.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int,
        *,
        group: dist.ProcessGroup | None = None,
        report: Report = log_warning,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(folder, report)
        self._fence = fence
        self.group = group if group is not None and group.size() > 1 else None
        self._store = CheckpointStore(folder, keep_last, report, fence)
        self._snapshots = Snapshots()
        self._background = Background()

    @property
    def is_saving(self) -> bool:
        """Whether this rank's part of a started save is still under way; it is no collective."""
        return self._background.is_busy

    def save(
        self,
        step: int,
        *,
        pieces: Pieces,
        optimizer_pieces: Pieces,
        state: Mapping[str, Any],
        texts: Mapping[str, str],
        best_val_loss: float | None = None,
    ) -> Path:
        """Saves a checkpoint and returns once it is committed; then deletes those that need not be kept.

        A good checkpoint of the same step is left as it is; a damaged one is replaced.

        Args:
            step: optimizer steps done.
            pieces: of the weights, by parameter name; a tied one once.
            optimizer_pieces: by STATE/PARAMETER; numbers (step counters) are pieces without rows.
            state: everything else a resumption needs, as JSON values; the first rank's is saved.
            texts: file name -> content; the first rank's are saved.
            best_val_loss: nats a token, where this is to be marked as the best so far.

        Returns:
            The checkpoint's folder.

        Raises:
            DiskFullError: no room for one of the ranks; all earlier checkpoints are untouched.
            CheckpointError: the ranks do not share the file system.
            Exception: whatever a started save failed with.
        """
        self.finish()
        self._save(step, pieces, optimizer_pieces, state, texts, best_val_loss)
        return self.path_of(step)

    def start_save(
        self,
        step: int,
        *,
        pieces: Pieces,
        optimizer_pieces: Pieces,
        state: Mapping[str, Any],
        texts: Mapping[str, str],
        best_val_loss: float | None = None,
    ) -> None:
        """`save`, of which only a copy on the CPU is made before this returns; a thread does the rest.

        The save before is waited for first. The checkpoint counts once it is committed; `finish`, the next
        `save` or `start_save` raise what it failed with.

        Raises:
            Exception: whatever the save before failed with.
        """
        self.finish()
        if self.group is not None:
            mine = written_here({**pieces, **optimizer_pieces}, self.group)
        else:
            mine = {**pieces, **optimizer_pieces}
        taken = self._snapshots.take(mine)
        weights = {name: piece for name, piece in taken.items() if name in pieces}
        moments = {name: piece for name, piece in taken.items() if name not in pieces}
        kept_state, kept_texts = deepcopy(dict(state)), dict(texts)
        self._background.start(lambda: self._save(step, weights, moments, kept_state, kept_texts, best_val_loss))

    def finish(self) -> None:
        """Waits for a started save; without one, does nothing.

        Raises:
            Exception: whatever it failed with, on all ranks alike; see `save`.
        """
        self._background.wait()

    def newest_good(self) -> Path | None:
        """See `CheckpointCatalogue`; each rank reads a share of the files."""
        for step in reversed(on_first_rank(self.group, self.all_steps)):
            path = self.path_of(step)
            try:
                verify_share(path, self.group)
            except DamagedCheckpointError as error:
                self.report(f"passing over the damaged checkpoint {path}: {error.reason}")
            else:
                return path
        return None

    def mark_best(self, step: int, val_loss: float) -> None:
        """See `CheckpointStore`."""
        on_first_rank(self.group, lambda: self._store.mark_best(step, val_loss))

    def clear_leftovers(self) -> None:
        """See `CheckpointStore`."""
        on_first_rank(self.group, self._store.clear_leftovers)

    def _save(
        self,
        step: int,
        weights: Pieces,
        optimizer: Pieces,
        state: Mapping[str, Any],
        texts: Mapping[str, str],
        best_val_loss: float | None,
    ) -> None:
        if self.group is None:
            self._store.save(step, weights=_whole(weights), optimizer=_whole(optimizer), state=state, texts=texts)
        elif not on_first_rank(self.group, lambda: self._store.holds(step)):
            write_pieces(
                self.path_of(step),
                step,
                weights=weights,
                optimizer=optimizer,
                texts=lambda: checkpoint_texts(state, texts),
                group=self.group,
                fence=self._fence,
            )
            on_first_rank(self.group, lambda: self._store.prune(written=step))
        if best_val_loss is not None:
            self.mark_best(step, best_val_loss)


def verify_share(folder: Path, group: dist.ProcessGroup | None) -> None:
    """Compares a checkpoint with its manifest, each rank every n-th file by size. Collective.

    Raises:
        DamagedCheckpointError: on all ranks; names the file and what is wrong with it.
        CheckpointError: it was written in a newer format.
    """

    def verify() -> None:
        manifest = check_outline(folder)
        by_size = sorted(manifest.files, key=lambda name: (manifest.files[name].size_bytes, name))
        rank, size = (dist.get_rank(group), group.size()) if group is not None else (0, 1)
        verify_files(folder, manifest, by_size[rank::size])

    on_all_ranks(group, verify)


def _whole(pieces: Pieces) -> dict[str, Tensor]:
    for name, piece in pieces.items():
        if piece.local.shape != piece.shape:
            raise ValueError(f"{name}: one process holds {tuple(piece.local.shape)} of {tuple(piece.shape)}")
    return {name: piece.local for name, piece in pieces.items()}
