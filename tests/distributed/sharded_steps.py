"""A sharded checkpoint's content as a function of its step, and the pieces of it that each rank holds."""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallax.checkpoint.catalogue import CheckpointCatalogue
from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.sharded_store import ShardedStore
from parallax.runtime.piece import Piece, whole_piece

TEXTS = {"config.yaml": "seed: 0\n", "tokenizer.json": '{"type": "byte"}\r\n'}


def tensors(step: int) -> dict[str, Tensor]:
    """Random numbers that no other step has: split unevenly, replicated, and owned by one rank."""
    generator = torch.Generator().manual_seed(step)
    weights = {
        "embedding.weight": torch.randn(13, 40, generator=generator),
        "norm.weight": torch.randn(7, generator=generator),
        "tracks.0.weight": torch.randn(30, 20, generator=generator),
        "tracks.1.weight": torch.randn(30, 20, generator=generator),
    }
    moments = {f"exp_avg/{name}": torch.randn(t.shape, generator=generator) for name, t in weights.items()}
    return weights | moments | {f"step/{name}": torch.tensor(float(step)) for name in weights}


def pieces(step: int, rank: int, num_ranks: int) -> dict[str, Piece]:
    """Of all tensors; more than two ranks hold the tracks several times."""
    return {name: piece for name, piece in _pieces(step, rank, num_ranks).items() if piece is not None}


def content(step: int, rank: int, num_ranks: int) -> dict[str, Any]:
    """The arguments of `ShardedStore.save` at a step."""
    held = pieces(step, rank, num_ranks)
    return {
        "pieces": {name: piece for name, piece in held.items() if "/" not in name},
        "optimizer_pieces": {name: piece for name, piece in held.items() if "/" in name},
        "state": {"progress": {"step": step}},
        "texts": TEXTS,
    }


def assert_newest_is(folder: Path, step: int) -> None:
    """To one process, the newest good checkpoint is of the step and holds its content."""
    path = CheckpointCatalogue(folder, report=lambda _: None).newest_good()
    assert path is not None
    found = read_checkpoint(path)
    held = {**found.weights, **found.optimizer}
    assert found.step == step
    assert held.keys() == tensors(step).keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in tensors(step).items())
    assert (found.state, found.texts) == ({"progress": {"step": step}}, TEXTS)


def save_steps(folder: Path, *steps: int, keep_last: int = 9) -> None:
    """As one rank of its pool."""
    store = ShardedStore(folder, keep_last, group=checkpoint_group())
    for step in steps:
        store.save(step, **content(step, dist.get_rank(), dist.get_world_size()))


@cache
def checkpoint_group() -> dist.ProcessGroup:
    """All ranks, for checkpoints alone."""
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=30))
    assert group is not None
    return group


def _pieces(step: int, rank: int, num_ranks: int) -> dict[str, Piece | None]:
    return {name: _piece(name, tensor, rank, num_ranks) for name, tensor in tensors(step).items()}


def _piece(name: str, tensor: Tensor, rank: int, num_ranks: int) -> Piece | None:
    if "tracks." in name and f"tracks.{rank % 2}." not in name:
        return None
    if "embedding" not in name or tensor.dim() == 0:
        return whole_piece(tensor)
    first = [13 * n // num_ranks for n in range(num_ranks + 1)]
    return Piece(tensor[first[rank] : first[rank + 1]], first[rank], tensor.shape)
