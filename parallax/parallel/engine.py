from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.optim import Optimizer

from parallax.model.dual_track import DualTrack
from parallax.model.head import Objective


class LossSums(NamedTuple):
    """Sums over the valid tokens of a global batch, all 0-dim and still on the device."""

    objective: Tensor
    nll: Tensor
    z: Tensor
    correct: Tensor
    tokens: int


class Engine(Protocol):
    """Who owns materialising, backward, clipping and stepping; the training loop sees nothing else."""

    model: DualTrack
    """The materialised model; its parameters keep the names of the unsharded model."""
    optimizer: Optimizer
    scales_loss: bool
    """Whether an update with overflowing gradients is skipped (fp16) rather than an error."""

    def materialize(self, fill: Callable[[DualTrack], None]) -> None:
        """Gives the model memory, fills its weights, applies the transforms and builds the optimizer."""
        ...

    def forward_backward(
        self, micro_batches: Sequence[Tensor], objective: Objective, noise_seeds: Sequence[int]
    ) -> LossSums:
        """Accumulates the gradient of the objective, normalised by the valid tokens of all micro-batches."""
        ...

    def clip_and_step(self, learning_rate: float) -> Tensor:
        """Clips the global gradient norm, updates the weights, clears gradients; the norm before clipping."""
        ...

    def set_trainable(self, frozen: Sequence[str]) -> None:
        """Freezes the parameters whose names match one of the shell patterns, and thaws all others."""
        ...

    def extra_state(self) -> Mapping[str, Any]:
        """What the engine must restore beside weights and optimizer, as plain values."""
        ...

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        ...
