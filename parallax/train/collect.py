from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from parallax.checkpoint.optimizer_state import optimizer_tensors
from parallax.parallel.native import NativeEngine
from parallax.parallel.placement import Piece
from parallax.train.world import World


def collect_state(
    engine: NativeEngine, world: World
) -> tuple[Mapping[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Unsharded weights and optimizer state as one process would have them, on the first rank; empty elsewhere.

    Collective. One parameter with its state travels at a time, so that only the first rank needs memory for all.

    Returns:
        Weights by name; optimizer tensors and JSON values as `optimizer_tensors` gives them.
    """
    model = engine.model
    tensors, values = optimizer_tensors(engine.optimizer, model.named_parameters())
    if world.mesh is None:
        return model.state_dict(keep_vars=True), tensors, values
    held: dict[str, dict[str, Tensor]] = {name: {"": parameter} for name, parameter in model.named_parameters()}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition("/")
        held[name][key] = tensor
    copies = world.mesh.layout.dp_replicate > 1 and world.mesh.device_mesh.get_local_rank("dp_replicate") > 0
    weights: dict[str, Tensor] = {}
    optimizer: dict[str, Tensor] = {}
    for name in engine.placement.ownership:
        mine = {} if copies else {k: _part(engine, name, t) for k, t in held.get(name, {}).items()}
        parts = [part for part in world.gather(mine) if part]
        for key in dict.fromkeys(key for part in parts for key in part):
            value = _assembled([part[key] for part in parts if key in part])
            if key:
                optimizer[f"{key}/{name}"] = value
            else:
                weights[name] = value
    if engine.model.config.tie_embeddings and weights:
        weights["head.weight"] = weights["embedding.weight"]
    return weights, optimizer, values


def _part(engine: NativeEngine, name: str, tensor: Tensor) -> Piece:
    if tensor.dim() == 0:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        return Piece(local.cpu(), 0, torch.Size())
    piece = engine.placement.piece(name, tensor)
    return Piece(piece.local.cpu(), piece.first_row, piece.shape)


def _assembled(pieces: list[Piece]) -> Tensor:
    """The whole tensor of pieces that cover all of its rows."""
    if not pieces[0].shape:
        return pieces[0].local
    whole = torch.empty(pieces[0].shape, dtype=pieces[0].local.dtype)
    for piece in pieces:
        whole[piece.rows] = piece.local
    return whole
