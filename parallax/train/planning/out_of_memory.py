import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from parallax.config.run import RunConfig
from parallax.errors import OutOfMemoryError, ParallaxError, is_out_of_memory
from parallax.train.planning.advice import find_change, need_of_run
from parallax.train.planning.fit import memory_of

_LESS = 0.9
"""Where the plan says that it fits, and it did not, a change has to bring it down to this share."""
_ANY = "train.activation_checkpointing=true, a smaller train.micro_batch or a smaller loss.chunk_tokens"


@contextmanager
def advising_when_full(config: RunConfig, world_size: int, device: torch.device) -> Iterator[None]:
    """Turns a lack of memory inside into one line with the planner's advice.

    It must be the outermost: the advice is planned in a process group of its own, when the run's is gone.

    Raises:
        OutOfMemoryError: there was no memory; the run folder is as the last save left it.
    """
    failed = False
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        failed = True
    # Beyond the handler, whose traceback would keep the engine and its memory alive.
    if failed:
        raise OutOfMemoryError(explain(config, world_size, device))


def explain(config: RunConfig, world_size: int, device: torch.device) -> str:
    """What was tried, and the settings to add."""
    train = config.train
    tried = (
        f"out of memory on {device} with train.micro_batch={train.micro_batch}, "
        f"loss.chunk_tokens={config.loss.chunk_tokens}, "
        f"train.activation_checkpointing={str(train.activation_checkpointing).lower()}"
    )
    return (
        f"{tried}; {_advice(config, world_size, device)}; the same command then goes on from the last checkpoint"
    )


def _advice(config: RunConfig, world_size: int, device: torch.device) -> str:
    runtime = config.runtime.model_copy(update={"device": device.type})
    config = config.model_copy(update={"runtime": runtime})
    try:
        planned = need_of_run(config, world_size).total_bytes
        limit = min(_limit(device) or planned, int(_LESS * planned))
        change = find_change(config, limit, world_size=world_size)
    except (MemoryError, RuntimeError, ParallaxError):
        # Where not even the planner has memory, or cannot plan this run, the rule of thumb is left.
        return f"try {_ANY}"
    if change is None:
        return f"planned were {planned / 2**20:,.0f} MiB, and no change that was tried fits: take more ranks"
    return (
        f"planned were {planned / 2**20:,.0f} MiB; add {change.line} ({change.need.total_bytes / 2**20:,.0f} MiB)"
    )


def _limit(device: torch.device) -> int | None:
    if device.type == "cuda":
        return memory_of(device)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
