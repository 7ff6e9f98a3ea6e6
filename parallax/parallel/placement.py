from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from parallax.model.decoder import Decoder
from parallax.model.registry import ownership_of
from parallax.runtime.layout import OwnershipMap
from parallax.runtime.piece import Piece


@dataclass(frozen=True)
class Placement:
    """Where the parameters of a model spread over ranks are: names are those of the unsharded model.

    Args:
        ownership: of the architecture.
        vocab_rows: the token ids whose rows of embedding and head this rank's track axis holds.
        vocab_size: V.
        track_ranks: K', over which what no track owns and no axis splits is replicated.
    """

    ownership: OwnershipMap
    vocab_rows: range
    vocab_size: int
    track_ranks: int

    @classmethod
    def of(cls, model: Decoder, track_ranks: int) -> Self:
        """That of a model, of which this rank may hold a part, over `track_ranks` ranks along the track axis."""
        return cls(
            ownership=ownership_of(model.config),
            vocab_rows=model.vocabulary.rows,
            vocab_size=model.config.vocab_size,
            track_ranks=track_ranks,
        )

    def piece(self, name: str, tensor: Tensor) -> Piece:
        """The piece behind a parameter, or behind anything that is sharded like it: a gradient, a moment."""
        local, first, shape = tensor.detach(), 0, tensor.shape
        if isinstance(local, DTensor):
            first, local = _first_row(local), local.to_local()
        if self.is_split(name):
            first += self.vocab_rows.start
            shape = torch.Size((self.vocab_size, *shape[1:]))
        return Piece(local, first, shape)

    def is_split(self, name: str) -> bool:
        """Whether the track axis divides this parameter's rows."""
        return self.ownership[name].vocab_dim is not None and len(self.vocab_rows) < self.vocab_size

    def copies(self, name: str) -> int:
        """How many ranks of the track axis hold the same values of this parameter."""
        is_shared = self.ownership[name].track is None and not self.is_split(name)
        return self.track_ranks if is_shared else 1

    def pieces(self, model: Decoder) -> Iterator[tuple[str, Piece]]:
        """All parameters' pieces; a tied one comes once."""
        for name, parameter in model.named_parameters():
            yield name, self.piece(name, parameter)

    def put(self, name: str, parameter: nn.Parameter, value: Tensor) -> None:
        """Copies this rank's rows of a whole value into a parameter."""
        piece = self.piece(name, parameter)
        piece.local.copy_(value[piece.rows])


def _first_row(tensor: DTensor) -> int:
    """Where a DTensor's local rows begin: FSDP2 gives ceil(n / ranks) rows to a rank, to the last what is left."""
    first = 0
    for axis, placement in enumerate(tensor.placements):
        if isinstance(placement, Shard):
            if placement.dim != 0:
                raise ValueError(f"a parameter is sharded along dim {placement.dim}; expected 0")
            rows = -(-tensor.shape[0] // tensor.device_mesh.size(axis))
            first = min(rows * tensor.device_mesh.get_local_rank(axis), tensor.shape[0])
    return first
