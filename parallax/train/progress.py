from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Progress:
    """How far a run has come; all of it is in every checkpoint."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Target tokens trained on."""
    flops: int = 0
    """Model FLOPs spent in training steps (recomputation not counted)."""
    best_val_loss: float | None = None
    """Lowest validation loss measured so far, nats a token."""
    validated_on: str | None = None
    """What that loss was measured on; another text starts the comparison anew."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """The inverse of `state_dict`."""
        return cls(**state)
