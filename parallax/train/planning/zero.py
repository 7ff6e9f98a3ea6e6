from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from parallax.config.run import RunConfig
from parallax.train.planning.choices import is_for_gpu
from parallax.train.planning.rank_plan import RankPlan


def zero_surroundings(config: RunConfig) -> AbstractContextManager[None]:
    """What a rehearsal of DeepSpeed needs around it; nothing for PyTorch's engine."""
    if config.parallel.engine != "deepspeed":
        return nullcontext()
    from parallax.parallel.deepspeed.rehearsal import deepspeed_rehearsal

    return deepspeed_rehearsal()


def zero_purposes(config: RunConfig) -> Mapping[str, str]:
    """Operation -> what ZeRO has the memory for that it reads and writes."""
    if config.parallel.engine != "deepspeed":
        return {}
    return {"c10d._allgather_base_.default": "gathered weights"}


def without_host(config: RunConfig, planned: RankPlan) -> RankPlan:
    """The plan of a GPU without what ZeRO keeps on the host: there, a rehearsal cannot tell the two apart.

    An offloaded optimizer takes the optimizer states, and from stage 2 on the gradients, which are divided;
    offloaded parameters take the weights. On a CPU the host is the device, and nothing leaves it.
    """
    if config.parallel.engine != "deepspeed" or not is_for_gpu(config):
        return planned
    zero = config.deepspeed
    stage = 2 if zero.zero_stage is None else zero.zero_stage
    on_host = {"optimizer states"} if zero.offload_optimizer else set()
    if zero.offload_optimizer and stage >= 2:
        on_host.add("gradients")
    if zero.offload_parameters:
        on_host.add("weights")
    if not on_host:
        return planned
    held = max(sum(kinds.get(kind, 0) for kind in on_host) for kinds in planned.memory.values())
    memory = {
        phase: {kind: size for kind, size in kinds.items() if kind not in on_host}
        for phase, kinds in planned.memory.items()
    }
    note = f"{', '.join(sorted(on_host))}: {held / 2**20:,.1f} MiB on the host, not counted"
    return replace(planned, memory=memory, notes=[*planned.notes, note])
