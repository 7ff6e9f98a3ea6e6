import io
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from parallax.runtime.piece import Piece


class PieceSavePlanner(DefaultSavePlanner):
    """Plans which rank writes which pieces: of ranks that hold the same rows the one with least to write.

    The plan fails where rows of a tensor are held by no rank, or overlap.
    """

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        """All pieces of this rank that have rows."""
        held = [(name, piece) for name, piece in self.state_dict.items() if piece.local.numel()]
        self.plan = SavePlan([_write_item(name, piece) for name, piece in held])
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        """The rows of a piece."""
        local: Tensor = self.state_dict[index.fqn].local
        return local


class PieceLoadPlanner(LoadPlanner):
    """Plans which rows of which files make the pieces that this rank wants."""

    def __init__(self) -> None:
        self._pieces: Mapping[str, Piece] = {}
        self._metadata = Metadata(state_dict_metadata={})

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Takes the pieces, by name, and what was saved."""
        self._pieces = state_dict
        self._metadata = metadata or self._metadata

    def create_local_plan(self) -> LoadPlan:
        """What to read."""
        items: list[ReadItem] = []
        for name, piece in self._pieces.items():
            saved = self._metadata.state_dict_metadata[name]
            if isinstance(saved, TensorStorageMetadata) and piece.local.numel():
                items += create_read_items_for_chunk_list(name, saved, [_chunk(piece)])
        return LoadPlan(items)

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        """Each rank reads what it planned."""
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        """As it was planned."""
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Never called: pieces are tensors."""
        raise TypeError(f"{read_item.storage_index.fqn} is no tensor")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """Where the rows that an item reads belong."""
        target = self._pieces[read_item.dest_index.fqn].local
        for dim, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            target = target.narrow(dim, start, length)
        return target

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing: the rows are where they belong."""


def _chunk(piece: Piece) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(offsets=piece.offsets, sizes=piece.local.shape)


def _write_item(name: str, piece: Piece) -> WriteItem:
    return WriteItem(
        index=MetadataIndex(name, piece.offsets),
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(
            chunk=_chunk(piece),
            properties=TensorProperties.create_from_tensor(piece.local),
            size=piece.shape,
        ),
    )
