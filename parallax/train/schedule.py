import math
from collections.abc import Callable

from parallax.config.sections import OptimConfig

_DEFAULT_WARMUP = 0.02

Shape = Callable[[float], float]
"""Share of the way from the end of the warm-up to the last step -> share of the way from `min_lr` to `lr`."""


def learning_rate(step: int, total_steps: int, config: OptimConfig) -> float:
    """Learning rate of step 1 .. total_steps.

    Warm-up: lr * step / warm-up steps. After it, with x rising from 0 to 1 at the last step:
    min_lr + (lr - min_lr) * shape(x), where shape is (1 + cos(pi x)) / 2 for cosine, 1 - x for linear, 1 for
    constant, and for warmup_stable_decay 1 until the last `decay_ratio` of the run, then falling linearly.
    """
    warmup = warmup_steps(total_steps, config)
    if step <= warmup:
        return config.lr * step / warmup
    progress = (step - warmup) / max(total_steps - warmup, 1)
    return config.min_lr + (config.lr - config.min_lr) * _shape(config, total_steps, warmup)(progress)


def warmup_steps(total_steps: int, config: OptimConfig) -> int:
    """Steps of warm-up: as stated, or the stated ratio of the run, or 2 % of it."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    ratio = _DEFAULT_WARMUP if config.warmup_ratio is None else config.warmup_ratio
    return round(ratio * total_steps)


def _shape(config: OptimConfig, total_steps: int, warmup: int) -> Shape:
    decay = min(config.decay_ratio * total_steps / max(total_steps - warmup, 1), 1.0)
    shapes: dict[str, Shape] = {
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
        "linear": lambda x: 1 - x,
        "constant": lambda x: 1.0,
        "warmup_stable_decay": lambda x: min(1.0, (1 - x) / decay),
    }
    return shapes[config.schedule]
