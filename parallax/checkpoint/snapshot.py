from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.planner import SavePlan

from parallax.checkpoint.agree import on_all_ranks
from parallax.checkpoint.piece_planner import PieceSavePlanner
from parallax.runtime.piece import Piece


class Snapshots:
    """Copies of pieces on the CPU, in memory that is kept from one copy to the next.

    Fresh memory would cost as much again as the copy: the system clears every page of it first.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, pieces: Mapping[str, Piece]) -> dict[str, Piece]:
        """Copies that training does not change; they are overwritten by the next call."""
        taken = {}
        for name, piece in pieces.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != piece.local.shape or buffer.dtype != piece.local.dtype:
                pinned = piece.local.is_cuda
                buffer = torch.empty_like(
                    piece.local, device="cpu", memory_format=torch.contiguous_format, pin_memory=pinned
                )
            taken[name] = buffer.copy_(piece.local, non_blocking=True)
        if any(piece.local.is_cuda for piece in pieces.values()):
            torch.cuda.synchronize()
        self._buffers = taken
        return {name: replace(piece, local=taken[name]) for name, piece in pieces.items()}


def written_here(pieces: Mapping[str, Piece], group: dist.ProcessGroup) -> dict[str, Piece]:
    """The pieces that this rank is to write where others hold the same rows, so that only those are copied.

    Collective. The planner that decides is the one that a save has, so the save finds nothing to drop.
    """
    planner = PieceSavePlanner()
    planner.set_up_planner(dict(pieces))
    plans: list[SavePlan] = on_all_ranks(group, planner.create_local_plan)
    shares, _ = planner.create_global_plan(plans)
    return {item.index.fqn: pieces[item.index.fqn] for item in shares[dist.get_rank(group)].items}
