"""Between a PyTorch optimizer and the pieces that checkpoints consist of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from parallax.model.decoder import Decoder
from parallax.parallel.engine import Read, SavedTensors
from parallax.parallel.optimizer_state import optimizer_tensors, restore_optimizer
from parallax.parallel.placement import Placement
from parallax.runtime.piece import Piece, whole_piece


def optimizer_pieces(
    optimizer: Optimizer, model: Decoder, placement: Placement
) -> tuple[dict[str, Piece], dict[str, Any]]:
    """This rank's pieces of the optimizer's state, sharing its memory, by STATE/PARAMETER.

    Returns:
        The pieces, and the JSON values of `optimizer_tensors`, the same on all ranks.

    Raises:
        ValueError: state that is no tensor, of which ranks would hold different values.
    """
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    if extra["values"]:
        raise ValueError(f"{next(iter(extra['values']))} is no tensor; ranks can only save tensors together")
    return {name: _piece(name, tensor, placement) for name, tensor in tensors.items()}, extra


def restore_optimizer_pieces(
    optimizer: Optimizer,
    model: Decoder,
    placement: Placement,
    saved: SavedTensors,
    extra: Mapping[str, Any],
    read: Read,
    *,
    source: str | Path,
) -> None:
    """Gives an optimizer the state in a checkpoint of any layout, this rank's rows of it. Collective.

    Args:
        optimizer: over the same model; its own state is replaced, its hyperparameters stay.
        model: with memory.
        placement: of the model.
        saved: what the checkpoint holds, weights among it.
        extra: the JSON values as saved.
        read: reads rows of it.
        source: the checkpoint, for messages.

    Raises:
        CheckpointError: the state is of another kind of optimizer, or of a parameter that no rank trains.
    """
    trained = {id(parameter) for settings in optimizer.param_groups for parameter in settings["params"]}
    parameters = {name: p for name, p in model.named_parameters() if id(p) in trained}
    tensors: dict[str, Tensor] = {}
    for full_name, (shape, dtype) in saved.items():
        key, _, name = full_name.rpartition("/")
        if key and name in parameters:
            blank = torch.empty_like(parameters[name], dtype=dtype) if shape else torch.empty((), dtype=dtype)
            tensors[full_name] = blank.detach()
    read({name: _piece(name, tensor, placement) for name, tensor in tensors.items()})
    restore_optimizer(optimizer, model.named_parameters(), tensors, extra, source=source)


def _piece(full_name: str, tensor: Tensor, placement: Placement) -> Piece:
    """The piece of a state tensor, which is sharded like its parameter or is a number."""
    if tensor.dim() == 0:
        return whole_piece(tensor)
    return placement.piece(full_name.rpartition("/")[2], tensor)
