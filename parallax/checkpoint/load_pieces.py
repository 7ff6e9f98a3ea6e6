from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from parallax.checkpoint.agree import on_all_ranks
from parallax.checkpoint.piece_reader import PieceReader
from parallax.errors import CheckpointError
from parallax.runtime.piece import Piece


def load_pieces(folder: Path, wanted: Mapping[str, Piece], *, group: dist.ProcessGroup | None = None) -> None:
    """Reads this rank's rows of a checkpoint, saved under any layout, into the memory of its pieces. Collective.

    Every saved tensor of a wanted kind must be wanted by some rank; kinds are the weights and each state of the
    optimizer. Nothing is changed on any rank unless everything fits on all.

    Args:
        folder: of a checkpoint that was verified a moment ago (`ShardedStore.newest_good`).
        wanted: by the names they were saved under; values are cast to their types.
        group: the ranks that hold one model between them, over a CPU backend; None: this process is alone.

    Raises:
        CheckpointError: on all ranks: a name is missing or unexpected, or a shape differs.
        DamagedCheckpointError: a file cannot be read.
    """
    held = {name for rank in on_all_ranks(group, lambda: sorted(wanted)) for name in rank}

    def open_and_check() -> None:
        reader = PieceReader(folder)
        reader.check(wanted)
        _refuse_unexpected(reader, held)
        readers.append(reader)

    readers: list[PieceReader] = []
    on_all_ranks(group, open_and_check)
    on_all_ranks(group, lambda: readers[0].fill(wanted))


def _refuse_unexpected(reader: PieceReader, held: Collection[str]) -> None:
    kinds = {_kind(name) for name in held}
    for name in reader.tensors:
        if _kind(name) in kinds and name not in held:
            raise CheckpointError(
                f"{reader.folder} holds {name}, and this run has no such parameter; use the configuration it was "
                f"trained with, or another checkpoint"
            )


def saved_tensors(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of every whole tensor of a checkpoint, weights and optimizer state, by name."""
    saved = PieceReader(folder).tensors
    return {name: (tensor.size, tensor.properties.dtype) for name, tensor in saved.items()}


def _kind(name: str) -> str:
    return name.rpartition("/")[0]
