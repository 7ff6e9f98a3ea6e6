from dataclasses import replace

from parallax.config.layout import resolve_layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.train.plan import RankPlan, plan_rank, settle_accumulation

_BUCKET = 500_000_000
"""DeepSpeed 0.19.8's default `reduce_bucket_size` and `allgather_bucket_size`, in elements."""
_LIVE = 1_000_000_000
"""Its `stage3_max_live_parameters`."""
_STATES = ("weights", "gradients", "optimizer states", "gathered weights", "reduction buffers")
_NOTE = (
    "ZeRO's own collectives are not counted; its memory is a closed form over its default bucket sizes, and "
    "was not compared with a run"
)


def plan_run(config: RunConfig, *, world_size: int, rank: int) -> RankPlan:
    """Plans a rank of either engine; see `plan_rank`.

    For DeepSpeed the activations are those that the native engine keeps without data parallelism, and the
    states a closed form over the rank's parameters.

    Raises:
        ConfigError: the layout is impossible.
    """
    if config.parallel.engine != "deepspeed":
        return plan_rank(config, world_size=world_size, rank=rank)
    layout = resolve_layout(config.parallel, config.model.num_tracks, world_size)
    if not 0 <= rank < world_size:
        raise ConfigError(f"--rank {rank}: the ranks of --world-size {world_size} are 0 to {world_size - 1}")
    parallel = config.parallel.model_copy(update={"engine": "native", "dp_shard": 1, "dp_replicate": 1})
    accumulation, notes = settle_accumulation(config, layout)
    train = config.train.model_copy(update={"global_batch": accumulation * config.train.micro_batch})
    alone = config.model_copy(update={"parallel": parallel, "train": train})
    planned = plan_rank(alone, world_size=layout.track, rank=rank % layout.track)
    narrow = next(c.value for c in planned.choices if c.key == "train.precision") != "fp32"
    states = zero_states(config, sum(planned.parameters.values()), layout.dp, narrow=narrow)
    memory = {
        phase: {kind: size for kind, size in kinds.items() if kind not in _STATES} | states
        for phase, kinds in planned.memory.items()
    }
    return replace(
        planned,
        layout=layout,
        rank=rank,
        global_batch=planned.global_batch * layout.dp,
        memory=memory,
        notes=[*notes, _NOTE],
    )


def zero_states(config: RunConfig, parameters: int, dp: int, *, narrow: bool) -> dict[str, int]:
    """Bytes that ZeRO keeps on a device for P parameters over d ranks, a bytes a weight (2, or 4 in fp32).

        weights           a P, with stage 3 a P / d
        gradients         a P, from stage 2 on a P / d
        optimizer states  8 P, and in 16 bits 4 P of fp32 masters; from stage 1 on / d
        reduction buffers 2 a min(P, bucket), two buckets in turn, from stage 1 on
        gathered weights  stage 3: a min(P, live parameters)

    An offloaded optimizer takes states and divided gradients to the host, offloaded parameters the weights.

    Args:
        config: the run's.
        parameters: of the rank, before they are divided.
        dp: ranks that divide them.
        narrow: whether weights are kept in 16 bits.
    """
    stage = 2 if config.deepspeed.zero_stage is None else config.deepspeed.zero_stage
    width = 2 if narrow else 4
    part = -(-parameters // dp)
    states = {
        "weights": width * (part if stage == 3 else parameters),
        "gradients": width * (part if stage >= 2 else parameters),
        "optimizer states": (12 if narrow else 8) * (part if stage >= 1 else parameters),
        "reduction buffers": 2 * width * min(parameters, _BUCKET) if stage >= 1 else 0,
        "gathered weights": width * min(parameters, _LIVE) if stage == 3 else 0,
    }
    if config.deepspeed.offload_optimizer and stage >= 1:
        states["optimizer states"] = 0
        if stage >= 2:
            states["gradients"] = 0
    if config.deepspeed.offload_parameters and stage == 3:
        states["weights"] = 0
    return states
