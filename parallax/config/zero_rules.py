from parallax.config.run import RunConfig
from parallax.errors import ConfigError


def check_zero(config: RunConfig) -> None:
    """Refuses what DeepSpeed would do wrong without a word, or not at all.

    Args:
        config: with engine, shards and DeepSpeed's section settled; where the precision is still `auto`, what
            depends on it passes.

    Raises:
        ConfigError: one line with the key and the way out.
    """
    if config.parallel.engine != "deepspeed":
        return
    for problem in (_of_layout(config), _of_stage(config), _of_training(config)):
        if problem is not None:
            raise ConfigError(f"parallel.engine=deepspeed: {problem}")


def _of_layout(config: RunConfig) -> str | None:
    parallel = config.parallel
    if parallel.dp_shard not in (None, 1):
        return (
            f"parallel.dp_shard={parallel.dp_shard} is FSDP2's, and ZeRO divides over the data-parallel ranks by "
            f"itself; leave it out and choose deepspeed.zero_stage"
        )
    if parallel.reshard_after_forward != "auto":
        return (
            f"parallel.reshard_after_forward={str(parallel.reshard_after_forward).lower()} is FSDP2's; leave it "
            f"out, deepspeed.settings has stage3_max_live_parameters"
        )
    if parallel.overlap:
        return "parallel.overlap=true has not been proven with it; set it to false, or parallel.engine=native"
    return None


def _of_stage(config: RunConfig) -> str | None:
    given, precision = config.deepspeed, config.train.precision
    stage = 2 if given.zero_stage is None else given.zero_stage
    if stage == 0 and precision in ("bf16", "fp16"):
        # Its 16-bit optimizers without ZeRO measure each rank's own track.
        return (
            f"deepspeed.zero_stage=0 with train.precision={precision} takes a gradient norm that leaves out the "
            f"tracks of other ranks; set deepspeed.zero_stage=1, or train.precision=fp32"
        )
    if stage == 0 and given.offload_optimizer:
        return "deepspeed.offload_optimizer=true needs deepspeed.zero_stage of 1 or more, not 0"
    if given.offload_parameters and stage < 3:
        return f"deepspeed.offload_parameters=true needs deepspeed.zero_stage=3, not {stage}"
    if given.offload_parameters and not given.offload_optimizer:
        return "deepspeed.offload_parameters=true needs deepspeed.offload_optimizer=true"
    return None


def _of_training(config: RunConfig) -> str | None:
    train = config.train
    if train.compile != "off":
        return f"train.compile={train.compile} does not work with its hooks; set train.compile=off"
    if train.ledger:
        return "train.ledger=true knows no formula of its collectives; set it to false, or parallel.engine=native"
    if train.freeze and train.precision in ("bf16", "fp16"):
        return (
            f"train.freeze with train.precision={train.precision} would round the frozen weights, which have no "
            f"fp32 masters; set train.precision=fp32, or parallel.engine=native"
        )
    return None
