from dataclasses import replace

import torch

from parallax.attention.select import choose_backend
from parallax.config.batch import resolve_batch
from parallax.config.layout import Layout
from parallax.config.run import RunConfig
from parallax.parallel.build import resolve_shared
from parallax.runtime.device import Precision, resolve_precision
from parallax.train.planning.rank_plan import Choice

_CPU = torch.device("cpu")


def is_for_gpu(config: RunConfig) -> bool:
    """Whether the run is planned for a GPU: wherever it is not told to take the CPU."""
    return config.runtime.device != "cpu"


def settle_accumulation(config: RunConfig, layout: Layout) -> tuple[int, list[str]]:
    """Micro-batches a step on each rank; where the batch does not divide, those of the nearest that does."""
    asked = config.train
    try:
        return resolve_batch(asked.global_batch, asked.micro_batch, layout.dp), []
    except ValueError as error:
        accumulation = max(1, round(asked.global_batch / (asked.micro_batch * layout.dp)))
        planned = accumulation * asked.micro_batch * layout.dp
        return accumulation, [f"train.{error}; planned with global_batch={planned}"]


def settle_choices(config: RunConfig, layout: Layout) -> tuple[str, Precision, list[Choice]]:
    """Attention backend and precision of the run, and all that was chosen, with reasons."""
    target = torch.device("cuda" if is_for_gpu(config) else "cpu")
    attention = choose_backend(config.model.attention, config.runtime.attention_backend, target)
    if config.train.precision == "auto" and is_for_gpu(config):
        chosen = resolve_precision("bf16", _CPU)
        precision = replace(chosen, reason="auto takes it on a GPU from sm_80 on")
    else:
        precision = resolve_precision(config.train.precision, _CPU)
    choices = [
        Choice("train.precision", precision.name, precision.reason),
        Choice("runtime.attention_backend", attention.backend.name, attention.reason),
    ]
    if layout.track > 1:
        reason = "auto: nothing twice" if config.parallel.shared == "auto" else "asked for"
        choices.append(Choice("parallel.shared", resolve_shared(config.parallel.shared), reason))
    if layout.dp_shard > 1 and config.parallel.engine != "deepspeed":
        asked = config.parallel.reshard_after_forward
        loops = config.model.num_loops
        value = loops == 1 if asked == "auto" else asked
        reason = f"auto: {loops} passes use what is gathered" if asked == "auto" else "asked for"
        choices.append(Choice("parallel.reshard_after_forward", str(value).lower(), reason))
    return attention.backend.name, precision, choices
