"""DeepSpeed's dynamic loss scale in the words of `torch.amp.GradScaler`, so that either engine can go on."""

from collections.abc import Mapping
from typing import Any


def shrink_without_end(scaler: Any) -> None:
    """Has no overflow raise at a smallest scale: the run itself ends where the scale falls too low."""
    scaler.min_scale = 0.0


def read_scale(scaler: Any) -> dict[str, Any]:
    """A `GradScaler`'s state dictionary that says the same."""
    return {
        "scale": float(scaler.cur_scale),
        "growth_factor": float(scaler.scale_factor),
        "backoff_factor": 1.0 / scaler.scale_factor,
        "growth_interval": int(scaler.scale_window),
        "_growth_tracker": (scaler.cur_iter - scaler.last_overflow_iter - 1) % scaler.scale_window,
    }


def write_scale(scaler: Any, state: Mapping[str, Any]) -> None:
    """The inverse of `read_scale`; factor and interval stay those that DeepSpeed was configured with."""
    scaler.cur_scale = float(state["scale"])
    scaler.last_overflow_iter = -1
    scaler.cur_iter = int(state["_growth_tracker"])
