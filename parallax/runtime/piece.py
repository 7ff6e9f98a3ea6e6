from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that this rank holds: rows [first_row, first_row + n) of the unsharded one."""

    local: Tensor
    """The rows themselves; of a parameter, sharing its memory."""
    first_row: int
    shape: torch.Size
    """Of the unsharded tensor; () for a number, which has no rows."""

    @property
    def rows(self) -> slice:
        """The rows held here, of the unsharded tensor's."""
        return slice(self.first_row, self.first_row + len(self.local))

    @property
    def offsets(self) -> torch.Size:
        """Where the rows begin, one number a dimension."""
        return torch.Size([self.first_row, *[0] * (len(self.shape) - 1)] if self.shape else [])


def whole_piece(tensor: Tensor) -> Piece:
    """A tensor all of which is here."""
    return Piece(tensor.detach(), 0, tensor.shape)
