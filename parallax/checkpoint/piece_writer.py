import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from parallax.checkpoint.agree import portable
from parallax.checkpoint.manifest import SHARDED_FORMAT, FileRecord, build_manifest, write_manifest
from parallax.checkpoint.piece_planner import PieceSavePlanner
from parallax.checkpoint.write import write_recorded
from parallax.errors import CheckpointError
from parallax.runtime.files import explain_disk_full, staged_directory
from parallax.runtime.piece import Piece

_OFFSETS_KEY = "DCP_SHARDING_INFO"
"""Where torch's `HuggingFaceStorageReader` looks for the place of each tensor of a file."""


class _Share(NamedTuple):
    """What the first rank tells each about its part of a save."""

    folder: Path
    """Where to write, beside the checkpoint to be."""
    number: int
    """Of the rank, for file names."""


def write_pieces(
    target: Path,
    step: int,
    *,
    weights: Mapping[str, Piece],
    optimizer: Mapping[str, Piece],
    texts: Callable[[], Mapping[str, str]],
    group: dist.ProcessGroup,
    fence: Callable[[], None] = lambda: None,
) -> None:
    """Writes a checkpoint from the pieces of all ranks: every rank its share, then the first rank commits it.

    `torch.distributed.checkpoint` plans and carries it out; two rounds of messages decide for all ranks alike:
    what each writes and where, and whether all of it is on the disk. The manifest is written after the last
    rank's files, and the folder renamed after the manifest. Collective.

    Args:
        target: the checkpoint's folder, on a file system that all ranks see; a damaged one there is replaced.
        step: optimizer steps done.
        weights: this rank's pieces, by parameter name.
        optimizer: this rank's pieces, by state and parameter name.
        texts: called on the first rank only.
        group: all ranks, over a CPU backend, with nothing else under way on it.
        fence: called on the first rank right before the commit, which it forbids by raising.

    Raises:
        DiskFullError: there was no room for one of the ranks.
        CheckpointError: the ranks do not share the file system.
        ValueError: rows of a tensor that no rank holds.
    """
    with explain_disk_full(target), _PieceWriter(target, step, set(optimizer), texts, fence) as writer:
        try:
            save({**weights, **optimizer}, storage_writer=writer, planner=PieceSavePlanner(), process_group=group)
        except CheckpointException as failure:
            error, _ = min(failure.failures.items())[1]
            raise error from None


class _PieceWriter(StorageWriter):
    """A folder of safetensors files, one of weights and one of optimizer state for each rank."""

    def __init__(
        self,
        target: Path,
        step: int,
        optimizer: set[str],
        texts: Callable[[], Mapping[str, str]],
        fence: Callable[[], None],
    ) -> None:
        self._target = target
        self._step = step
        self._optimizer = optimizer
        self._texts = texts
        self._fence = fence
        self._staging = ExitStack()
        self._folder = target

    def __enter__(self) -> Self:
        """Leaving without a commit deletes what was written."""
        return self

    def __exit__(self, *error: Any) -> None:
        self._staging.__exit__(*error)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing: a writer writes one checkpoint."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Never asked for: the writer is made with its folder."""
        return True

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """On the first rank: makes the folder and tells all ranks."""
        self._folder = self._staging.enter_context(staged_directory(self._target, replace=True, fence=self._fence))
        return [replace(plan, storage_data=_Share(self._folder, number)) for number, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """On every rank: its files, on the disk and hashed."""
        try:
            with explain_disk_full(self._target):
                records = self._write_share(plan, planner)
        except Exception as error:
            raise portable(error) from None
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(MetadataIndex(name), r.size_bytes, r) for name, r in records.items()])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the first rank, once all have written: texts, manifest, rename."""
        try:
            records: dict[str, FileRecord] = {r.index.fqn: r.storage_data for rank in results for r in rank}
            records |= write_recorded(self._folder, {}, self._texts())
            write_manifest(self._folder, build_manifest(self._step, records, SHARDED_FORMAT))
            self._staging.close()
        except Exception as error:
            raise portable(error) from None

    def _write_share(self, plan: SavePlan, planner: SavePlanner) -> dict[str, FileRecord]:
        share: _Share = plan.storage_data
        if not share.folder.is_dir():
            raise CheckpointError(
                f"{share.folder.parent} is not the same folder on all ranks; put run.dir on a file system that "
                f"all nodes share"
            )
        files: dict[str, dict[str, Tensor]] = {}
        offsets = {}
        for item in plan.items:
            name = item.index.fqn
            kind = "optimizer" if name in self._optimizer else "model"
            rows = planner.resolve_data(item)
            assert isinstance(rows, Tensor)
            files.setdefault(f"{kind}-rank-{share.number:05d}.safetensors", {})[name] = rows
            offsets[name] = {"saved_offsets": list(item.index.offset or ())}
        return write_recorded(share.folder, files, {}, {_OFFSETS_KEY: json.dumps(offsets)})
