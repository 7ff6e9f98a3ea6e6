"""Between an engine's parameters and the pieces that checkpoints consist of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from parallax.checkpoint.load_pieces import load_pieces, saved_tensors
from parallax.checkpoint.optimizer_state import optimizer_tensors, restore_optimizer
from parallax.model.dual_track import DualTrack
from parallax.parallel.placement import Placement
from parallax.runtime.piece import Piece, whole_piece


def weight_pieces(model: DualTrack, placement: Placement) -> dict[str, Piece]:
    """This rank's pieces of the weights, sharing their memory."""
    return dict(placement.pieces(model))


def optimizer_pieces(
    optimizer: Optimizer, model: DualTrack, placement: Placement
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


def restore_weights(
    folder: Path, model: DualTrack, placement: Placement, group: dist.ProcessGroup | None = None
) -> None:
    """Fills a materialised model from a verified checkpoint of any layout. Collective.

    Raises:
        CheckpointError: it is of another architecture, or cannot be read.
    """
    load_pieces(folder, weight_pieces(model, placement), group=group)


def restore_optimizer_pieces(
    folder: Path,
    optimizer: Optimizer,
    model: DualTrack,
    placement: Placement,
    extra: Mapping[str, Any],
    group: dist.ProcessGroup | None = None,
) -> None:
    """Gives an optimizer the state in a verified checkpoint of any layout, this rank's rows of it. Collective.

    Args:
        folder: of the checkpoint.
        optimizer: over the same model; its own state is replaced, its hyperparameters stay.
        model: with memory.
        placement: of the model.
        extra: the JSON values as saved.
        group: the ranks that hold one model between them; None: this process is alone.

    Raises:
        CheckpointError: the state is of another kind of optimizer, or of a parameter that no rank trains.
    """
    trained = {id(parameter) for settings in optimizer.param_groups for parameter in settings["params"]}
    parameters = {name: p for name, p in model.named_parameters() if id(p) in trained}
    tensors: dict[str, Tensor] = {}
    for full_name, (shape, dtype) in saved_tensors(folder).items():
        key, _, name = full_name.rpartition("/")
        if key and name in parameters:
            blank = torch.empty_like(parameters[name], dtype=dtype) if shape else torch.empty((), dtype=dtype)
            tensors[full_name] = blank.detach()
    load_pieces(folder, {name: _piece(name, tensor, placement) for name, tensor in tensors.items()}, group=group)
    restore_optimizer(optimizer, model.named_parameters(), tensors, extra, source=folder)


def _piece(full_name: str, tensor: Tensor, placement: Placement) -> Piece:
    """The piece of a state tensor, which is sharded like its parameter or is a number."""
    if tensor.dim() == 0:
        return whole_piece(tensor)
    return placement.piece(full_name.rpartition("/")[2], tensor)
