from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from parallax.checkpoint.manifest import DamagedCheckpointError
from parallax.checkpoint.piece_planner import PieceLoadPlanner
from parallax.errors import CheckpointError
from parallax.runtime.piece import Piece, whole_piece


class PieceReader:
    """Reads rows of the tensors of a checkpoint, whoever saved them: one process, or any number of ranks.

    Args:
        folder: of a checkpoint that was verified.

    Raises:
        DamagedCheckpointError: a file is no safetensors file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = HuggingFaceStorageReader(str(folder))
        try:
            self._metadata = self._reader.read_metadata()
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DamagedCheckpointError(folder, str(error)) from None
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=False)
        self.tensors = {
            name: saved
            for name, saved in self._metadata.state_dict_metadata.items()
            if isinstance(saved, TensorStorageMetadata)
        }
        """What was saved, by name: `size` of the whole, `properties.dtype`, and the `chunks` it lies in."""

    def check(self, wanted: Mapping[str, Piece]) -> None:
        """Looks whether pieces are there.

        Raises:
            CheckpointError: a name is missing or of another shape.
        """
        for name, piece in wanted.items():
            if name not in self.tensors:
                raise CheckpointError(
                    f"{self.folder} holds a model of another architecture: {name} is missing; use the "
                    f"configuration it was trained with, or another checkpoint"
                )
            saved = self.tensors[name].size
            if saved != piece.shape:
                raise CheckpointError(
                    f"{self.folder} holds a model of another architecture: {name} is {tuple(saved)} there and "
                    f"{tuple(piece.shape)} here; use the configuration it was trained with, or another checkpoint"
                )

    def fill(self, wanted: Mapping[str, Piece]) -> None:
        """Reads the rows of pieces into their memory, cast to their types; no other rows are read.

        Raises:
            CheckpointError: see `check`.
            DamagedCheckpointError: rows are missing, or a file cannot be read.
        """
        self.check(wanted)
        planner = PieceLoadPlanner()
        planner.set_up_planner(dict(wanted), self._metadata)
        plan = planner.create_local_plan()
        found = dict.fromkeys(wanted, 0)
        for item in plan.items:
            found[item.dest_index.fqn] += prod(item.lengths)
        for name, piece in wanted.items():
            if found[name] != piece.local.numel():
                raise DamagedCheckpointError(self.folder, f"rows of {name} are missing")
        try:
            with torch.no_grad():
                self._reader.read_data(plan, planner)
        except (OSError, SafetensorError) as error:
            raise DamagedCheckpointError(self.folder, str(error)) from None

    def whole(self, name: str) -> Tensor:
        """One tensor, put together from its rows."""
        saved = self.tensors[name]
        tensor = torch.empty(saved.size, dtype=saved.properties.dtype)
        self.fill({name: whole_piece(tensor)})
        return tensor


class AssembledTensors(Mapping[str, Tensor]):
    """Tensors of a checkpoint that are put together when they are asked for, and held by whoever asks.

    Args:
        reader: of the checkpoint.
        names: which of its tensors.
        device: where they are wanted.
    """

    def __init__(self, reader: PieceReader, names: list[str], device: torch.device | str = "cpu") -> None:
        self._reader = reader
        self._names = dict.fromkeys(names)
        self._device = device

    def __getitem__(self, name: str) -> Tensor:
        """The whole tensor."""
        if name not in self._names:
            raise KeyError(name)
        return self._reader.whole(name).to(self._device)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._names)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)
