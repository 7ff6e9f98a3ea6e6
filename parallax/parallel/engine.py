from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from parallax.model.decoder import Decoder
from parallax.model.head import Objective
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.placement import Placement
from parallax.parallel.traffic import Key, Traffic
from parallax.runtime.device import Precision
from parallax.runtime.piece import Piece

SavedTensors = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shape and type of every whole tensor of a checkpoint, by name."""
Read = Callable[[Mapping[str, Piece]], None]
"""Reads rows of a checkpoint into the memory of pieces, by the names they were saved under. Collective."""


class LossSums(NamedTuple):
    """Sums over the valid tokens of a global batch, all 0-dim and still on the device."""

    objective: Tensor
    nll: Tensor
    z: Tensor
    correct: Tensor
    tokens: int


class Engine(Protocol):
    """Who owns materialising, backward, clipping and stepping; the training loop sees nothing else."""

    model: Decoder
    """The materialised model; its parameters keep the names of the unsharded model."""
    description: str | None
    """What steps where it is not PyTorch, for the person who reads the log."""
    placement: Placement
    """What of the unsharded model this rank's model is."""
    device: torch.device
    precision: Precision
    scales_loss: bool
    """Whether an update with overflowing gradients is skipped (fp16) rather than an error."""

    @property
    def loss_scale(self) -> float:
        """The factor on the loss, 1 without scaling; reading it may wait for the device."""
        ...

    def inference(self) -> AbstractContextManager[None]:
        """Put around validation and samples: the autocast of this run, and weights back in place. Collective."""
        ...

    def materialize(self, fill: Callable[[Decoder], None]) -> None:
        """Gives the model memory, fills its weights, applies the transforms and builds the optimizer."""
        ...

    def forward_backward(
        self, micro_batches: Sequence[Tensor], objective: Objective, noise: Sequence[Tensor]
    ) -> LossSums:
        """Accumulates the gradient of the objective, normalised by the valid tokens of all micro-batches.

        Dropout draws from `noise`, the row keys of each micro-batch (see `row_keys`), and from nothing else.

        Args:
            micro_batches: windows (b, T + 1) of token ids, on the CPU; IGNORE_INDEX marks targets to skip.
            objective: what is minimised.
            noise: (b,) row keys of each micro-batch, on the CPU.
        """
        ...

    def clip_and_step(self, learning_rate: float) -> Tensor:
        """Clips the global gradient norm, updates the weights, clears gradients; the norm before clipping."""
        ...

    def parameter_norm(self) -> Tensor:
        """The norm of all parameters of the model, wherever they are; 0-dim."""
        ...

    def local_weights(self) -> list[Tensor]:
        """The parts of the weights, as the optimizer keeps them, that are on this rank."""
        ...

    def lasting(self) -> dict[str, list[Tensor]]:
        """What stays from step to step, or until the gradients are used: weights, gradients, optimizer states.

        For whoever counts memory: tensors may share it, and be parts of what is theirs.
        """
        ...

    def weight_pieces(self) -> Mapping[str, Piece]:
        """This rank's pieces of the weights, as the optimizer keeps them; all ranks' are the model. Collective."""
        ...

    def optimizer_pieces(self) -> tuple[Mapping[str, Piece], Mapping[str, Any]]:
        """This rank's pieces of the optimizer's state, by STATE/PARAMETER; and JSON values. Collective.

        The names and the values are those of PyTorch's AdamW whatever engine it is, so that any can go on.
        """
        ...

    def load_optimizer_state(
        self, saved: SavedTensors, extra: Mapping[str, Any], read: Read, *, source: str | Path
    ) -> None:
        """The inverse of `optimizer_pieces`, whatever the engine and the layout that saved. Collective.

        Args:
            saved: what the checkpoint holds, weights among it.
            extra: the JSON values as saved.
            read: reads rows of it.
            source: the checkpoint, for messages.

        Raises:
            CheckpointError: the state is of another kind of optimizer, or of a parameter that no rank trains.
        """
        ...

    def set_trainable(self, patterns: Sequence[str]) -> None:
        """Trains the parameters whose names match one of the shell patterns, and freezes all others."""
        ...

    def record_traffic(self) -> LedgerRecorder:
        """A context that notes every collective of this rank inside it, for one step or several."""
        ...

    def predict_traffic(self, micro_batches: Sequence[Tensor], objective: Objective) -> Mapping[Key, Traffic]:
        """What a step over these micro-batches, update included, must move by the formula."""
        ...

    def extra_state(self) -> Mapping[str, Any]:
        """What the engine must restore beside weights and optimizer, as plain values."""
        ...

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        ...
