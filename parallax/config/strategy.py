"""Who steps, and what ranks divide: settled from the run configuration and what the launcher asks for."""

import os
from collections.abc import Iterable
from typing import Any

from parallax.config.accelerate import ALL_RANKS
from parallax.config.batch import accumulation_on_ranks
from parallax.config.deepspeed_json import read_settings, settings_statements
from parallax.config.parallel import DeepSpeedConfig, ParallelConfig
from parallax.config.run import RunConfig
from parallax.config.statement import Statement, agreed, contradiction
from parallax.config.zero_rules import check_zero
from parallax.errors import ConfigError

PLANNED_RANKS = "PARALLAX_PLANNED_RANKS"
"""The environment variable by which `python -m launch` tells every rank the world size that it planned."""

_DEEPSPEED_KEYS = ("zero_stage", "offload_optimizer", "offload_parameters", "settings")
_UNSET = (None, "auto")


def settle_strategy(
    config: RunConfig, statements: Iterable[Statement], world_size: int, *, suggested_engine: str = "native"
) -> RunConfig:
    """The configuration with `parallel.engine`, `parallel.dp_shard` and, for DeepSpeed, its section settled.

    Args:
        config: as the user gave it.
        statements: what the launcher asks for.
        world_size: all ranks.
        suggested_engine: what `auto` means where no statement is made.

    Raises:
        ConfigError: two places contradict each other, or what they ask for together does not exist; one line with
            both values and both places.
    """
    said = list(statements)
    engine = _settle(said, "parallel.engine", config.parallel.engine) or suggested_engine
    deepspeed = config.deepspeed
    if engine == "deepspeed":
        path = _settings_path(said, deepspeed.settings)
        if path is not None:
            said += settings_statements(read_settings(path), path)
        deepspeed = _settle_deepspeed(deepspeed.model_copy(update={"settings": path}), said)
    elif config.parallel.engine == "auto":
        _refuse_unused(deepspeed)
    parallel = _settle_parallel(config.parallel, said, engine, world_size)
    train = config.train.model_copy(
        update={
            "precision": _settle(said, "train.precision", config.train.precision) or "auto",
            "activation_checkpointing": _settle(
                said, "train.activation_checkpointing", config.train.activation_checkpointing
            ),
        }
    )
    settled = config.model_copy(update={"parallel": parallel, "deepspeed": deepspeed, "train": train})
    _compare_batch(settled, said, world_size)
    _settle(said, "optim.grad_clip", config.optim.grad_clip)
    check_zero(settled)
    return settled


def _settle(statements: Iterable[Statement], key: str, ours: Any) -> Any:
    """Ours where it is set, else what is said; None: neither.

    Raises:
        ConfigError: they differ, or two of those said.
    """
    statement = agreed(statements, key)
    if ours in _UNSET:
        return statement.value if statement else None
    if statement is not None and statement.value != ours:
        raise contradiction(statement, ours)
    return ours


def _settle_parallel(
    parallel: ParallelConfig, said: list[Statement], engine: str, world_size: int
) -> ParallelConfig:
    replicate = _settle(said, "parallel.dp_replicate", parallel.dp_replicate)
    left = max(world_size // (parallel.track * (replicate or 1)), 1)
    everything = next((s for s in said if s.value == ALL_RANKS), None)
    exact = [s for s in said if s is not everything]
    shard = _settle(exact, "parallel.dp_shard", parallel.dp_shard)
    if everything is not None and shard == 1 and left > 1:
        raise contradiction(everything, 1)
    shard = shard or (left if everything is not None else 1)
    reshard = _settle(said, "parallel.reshard_after_forward", parallel.reshard_after_forward)
    update = {"engine": engine, "dp_shard": shard, "dp_replicate": replicate}
    return parallel.model_copy(update={**update, "reshard_after_forward": "auto" if reshard is None else reshard})


def _settings_path(said: list[Statement], ours: str | None) -> str | None:
    statement = agreed(said, "deepspeed.settings")
    if statement is None or ours is None:
        return ours if statement is None else str(statement.value)
    if os.path.realpath(ours) != os.path.realpath(statement.value):
        raise contradiction(statement, ours)
    return ours


def _settle_deepspeed(section: DeepSpeedConfig, said: list[Statement]) -> DeepSpeedConfig:
    stage = _settle(said, "deepspeed.zero_stage", section.zero_stage)
    stage = 2 if stage is None else stage
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"deepspeed.zero_stage={stage}: expected 0, 1, 2 or 3")
    offload = {
        key: bool(_settle(said, f"deepspeed.{key}", getattr(section, key)))
        for key in ("offload_optimizer", "offload_parameters")
    }
    return section.model_copy(update={"zero_stage": int(stage), **offload})


def _refuse_unused(section: DeepSpeedConfig) -> None:
    for key in _DEEPSPEED_KEYS:
        value = getattr(section, key)
        if value not in (None, False):
            raise ConfigError(
                f"deepspeed.{key}={value} has no effect, as parallel.engine=auto is native here; set "
                f"parallel.engine=deepspeed, or native to leave the section aside"
            )


def _compare_batch(config: RunConfig, said: list[Statement], world_size: int) -> None:
    """Compares what is said about the batch with what follows from the run configuration on so many ranks."""
    parallel, train = config.parallel, config.train
    dp = max(world_size // parallel.track, 1)
    try:
        accumulation = accumulation_on_ranks(train.global_batch, train.micro_batch, dp)
    except ValueError:
        return  # told with the nearest valid one when the ranks are arranged
    ours = {
        "train.global_batch": train.global_batch,
        "train.micro_batch": train.global_batch // (accumulation * dp),
        "accumulation": accumulation,
    }
    for key, value in ours.items():
        statement = agreed(said, key)
        if statement is None or statement.value == value:
            continue
        if key != "accumulation":
            raise contradiction(statement, value)
        raise ConfigError(
            f"{statement.place} says {statement.said} and the run configuration makes it {accumulation} "
            f"(train.global_batch={train.global_batch}, train.micro_batch={train.micro_batch}, {dp} data-parallel "
            f"ranks); change one of them"
        )
