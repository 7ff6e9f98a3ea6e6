from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from parallax.errors import NonFiniteError

_NEVER = 2**62

LastCheckpoint = Callable[[], str | None]
"""The newest checkpoint's path, or None; asked for only when there is an error to report."""


class FiniteGuard:
    """Remembers, on the device, the first step at which a watched value was NaN or infinite.

    Watching costs no synchronisation; `check` does, and is called before anything is written. No checkpoint
    can therefore hold weights that a NaN has reached.
    """

    def __init__(self, device: torch.device) -> None:
        self._first_bad = torch.full((), _NEVER, dtype=torch.long, device=device)

    def watch(self, step: int, *values: Tensor) -> None:
        """Notes `step` if one of the 0-dim values is not finite."""
        self._note(step, torch.stack([value.isfinite() for value in values]).all())

    def watch_weights(self, step: int, weights: Iterable[Tensor]) -> None:
        """Notes `step` if any element is not finite; reads all weights, so it is for steps that save."""
        self._note(step, torch.stack([weight.isfinite().all() for weight in weights]).all())

    @property
    def is_bad(self) -> bool:
        """Whether a step so far was not finite; waits for the device."""
        return int(self._first_bad) != _NEVER

    def check(self, last_checkpoint: LastCheckpoint) -> None:
        """Raises if a step so far was not finite.

        Raises:
            NonFiniteError: see `non_finite`.
        """
        step = int(self._first_bad)
        if step != _NEVER:
            raise non_finite(step, last_checkpoint())

    def _note(self, step: int, finite: Tensor) -> None:
        self._first_bad = torch.minimum(self._first_bad, torch.where(finite, _NEVER, step))


def non_finite(step: int, last_checkpoint: str | None) -> NonFiniteError:
    """The error that names the step, the checkpoint that is kept, and what to try."""
    kept = f"the last good checkpoint is {last_checkpoint}" if last_checkpoint else "none was saved before"
    return NonFiniteError(
        f"step {step}: the loss, the gradient norm or a weight is NaN or infinite; {kept}; "
        f"try a lower optim.lr, a longer optim.warmup_steps or train.precision=fp32 in a new run.dir"
    )
