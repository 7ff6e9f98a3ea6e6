from collections.abc import Callable

import torch

from parallax.config.run import RunConfig
from parallax.errors import ConfigError, OutOfMemoryError, is_out_of_memory
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.build import build_native_engine
from parallax.runtime.device import Precision
from parallax.train.optimizer import build_optimizer
from parallax.train.world import World

Attempt = Callable[[int], None]


def settle_micro_batch(
    config: RunConfig,
    saved: RunConfig | None,
    world: World,
    device: torch.device,
    precision: Precision,
    report: Callable[[str], None],
) -> RunConfig:
    """With `train.auto_batch`, the configuration with the largest micro-batch that fits on every rank.

    Tried are the divisors of what each rank takes of the global batch, from `train.micro_batch` down, by two
    steps of a model that is thrown away. A run that goes on keeps what was found, if it still divides.

    Raises:
        ConfigError: DeepSpeed steps, or ranks share tracks or weights, so that one alone cannot be tried.
        OutOfMemoryError: not even one sequence fits.
    """
    if not config.train.auto_batch:
        return config
    dp = world.dp[1]
    share = config.train.global_batch // dp
    if saved is not None and saved.train.auto_batch and share % saved.train.micro_batch == 0:
        return _with(config, saved.train.micro_batch)
    if config.parallel.engine == "deepspeed":
        raise ConfigError(
            "train.auto_batch=true tries steps of parallel.engine=native only; set train.auto_batch=false and ask "
            "`parallax plan --memory` for a train.micro_batch"
        )
    if world.mesh is not None and world.mesh.layout.world_size != world.mesh.layout.dp_replicate:
        raise ConfigError(
            "train.auto_batch=true tries each rank alone, which parallel.track and parallel.dp_shard do not "
            "allow; set train.auto_batch=false and ask `parallax plan --memory` for a train.micro_batch"
        )
    found = largest_that_fits(share, config.train.micro_batch, _trial(config, world, device, precision), world.any)
    if found is None:
        raise OutOfMemoryError(
            f"train.auto_batch=true: not even one sequence of {config.model.max_seq_len} tokens fits on {device}; "
            f"add train.activation_checkpointing=true or a smaller loss.chunk_tokens"
        )
    report(
        f"train.micro_batch={found}: the largest that fits, found by train.auto_batch; "
        f"global_batch={config.train.global_batch} stays, accumulation {share // found}"
    )
    return _with(config, found)


def largest_that_fits(
    share: int, most: int, attempt: Attempt, any_rank: Callable[[bool], bool] = bool
) -> int | None:
    """The largest divisor of a rank's samples, at most `most`, whose attempt finds memory on all ranks."""
    for size in range(min(share, most), 0, -1):
        if share % size == 0 and not any_rank(_is_too_large(size, attempt)):
            return size
    return None


def _is_too_large(size: int, attempt: Attempt) -> bool:
    try:
        attempt(size)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return True
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return False


def _trial(config: RunConfig, world: World, device: torch.device, precision: Precision) -> Attempt:
    def attempt(size: int) -> None:
        engine = build_native_engine(
            config.model,
            mesh=None,
            device=device,
            attention_backend=config.runtime.attention_backend,
            precision=precision,
            build_optimizer=lambda filled: build_optimizer(filled, config.optim),
            grad_clip=config.optim.grad_clip,
            activation_checkpointing=config.train.activation_checkpointing,
        )
        placement = engine.placement
        assert placement is not None
        engine.materialize(lambda model: model.initialize(config.seed, placement.put))
        # DDP's buckets are as large as the gradients.
        count = sum(parameter.numel() for parameter in engine.model.parameters()) if world.mesh is not None else 0
        buckets = torch.zeros(count, device=device)
        objective = Objective(chunk_tokens=config.loss.chunk_tokens)
        accumulates = config.train.global_batch // world.dp[1] > size
        for _ in range(2):
            windows = [torch.zeros(size, config.model.max_seq_len + 1, dtype=torch.long)] * (1 + accumulates)
            engine.forward_backward(windows, objective, [row_keys(0, range(size)) for _ in windows])
            engine.clip_and_step(0.0)
        del buckets

    return attempt


def _with(config: RunConfig, micro_batch: int) -> RunConfig:
    train = config.train.model_copy(update={"micro_batch": micro_batch})
    return config.model_copy(update={"train": train})
