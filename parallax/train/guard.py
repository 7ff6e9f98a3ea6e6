import torch
from torch import Tensor

from parallax.errors import NonFiniteError

_NEVER = 2**62


class FiniteGuard:
    """Remembers, on the device, the first step at which a watched value was NaN or infinite.

    Watching costs no synchronisation; `check` does, and is called before anything is written. No checkpoint
    can therefore hold weights that a NaN has reached.
    """

    def __init__(self, device: torch.device) -> None:
        self._first_bad = torch.full((), _NEVER, dtype=torch.long, device=device)

    def watch(self, step: int, *values: Tensor) -> None:
        """Notes `step` if one of the 0-dim values is not finite."""
        finite = torch.stack([value.isfinite() for value in values]).all()
        noted = torch.where(finite, _NEVER, step)
        self._first_bad = torch.minimum(self._first_bad, noted)

    def check(self, last_checkpoint: str | None) -> None:
        """Raises if a step so far was not finite.

        Raises:
            NonFiniteError: names the step, the checkpoint that is kept, and what to try.
        """
        step = int(self._first_bad)
        if step != _NEVER:
            kept = f"the last good checkpoint is {last_checkpoint}" if last_checkpoint else "none was saved before"
            raise NonFiniteError(
                f"step {step}: the loss or the gradient norm is NaN or infinite; {kept}; "
                f"try a lower optim.lr, a longer optim.warmup_steps or train.precision=fp32 in a new run.dir"
            )
