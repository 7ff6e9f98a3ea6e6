import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallax.config.layout import Layout
from parallax.config.run import RunConfig
from parallax.errors import ConfigError
from parallax.runtime.device import PrecisionName

_LARGEST_BUCKET = 500_000_000
_OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "bf16",
    "fp16",
)
_REFUSED = ("optimizer", "scheduler", "data_types", "torch_autocast", "tensor_parallel", "hybrid_engine", "amp")


@dataclass(frozen=True)
class Zero:
    """What DeepSpeed divides among the data-parallel ranks and keeps on the host."""

    stage: int
    offload_optimizer: bool = False
    offload_parameters: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    """DeepSpeed's own settings, for what has no key of ours."""

    def describe(self) -> str:
        """ZeRO 3; on the host: optimizer, weights."""
        on_host = ["optimizer"] * self.offload_optimizer + ["weights"] * self.offload_parameters
        return f"ZeRO {self.stage}" + (f"; on the host: {', '.join(on_host)}" if on_host else "")


def resolve_zero(config: RunConfig, layout: Layout, precision: PrecisionName) -> Zero:
    """ZeRO as a run asks for it.

    Raises:
        ConfigError: what is asked for would be silently wrong or without effect.
    """
    given = config.deepspeed
    zero = Zero(
        stage=2 if given.zero_stage is None else given.zero_stage,
        offload_optimizer=bool(given.offload_optimizer),
        offload_parameters=bool(given.offload_parameters),
        settings=_read(given.settings),
    )
    for problem in (_of_layout(config, layout), _of_stage(zero, precision), _of_training(config, precision)):
        if problem is not None:
            raise ConfigError(f"parallel.engine=deepspeed: {problem}")
    return zero


def build_settings(
    zero: Zero,
    *,
    precision: PrecisionName,
    micro_batch: int,
    accumulation: int,
    grad_clip: float,
    num_parameters: int,
) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Args:
        zero: see `resolve_zero`.
        precision: of weights and gradients; masters are fp32.
        micro_batch: samples per forward.
        accumulation: forwards per update, on each rank.
        grad_clip: largest global gradient norm; 0 does not clip.
        num_parameters: that this rank has before they are divided.
    """
    settings: dict[str, Any] = {key: value for key, value in zero.settings.items() if key not in _OURS}
    settings["train_micro_batch_size_per_gpu"] = micro_batch
    settings["gradient_accumulation_steps"] = accumulation
    # Stage 0 has no norm to report, so the engine takes norm and clipping upon itself there.
    settings["gradient_clipping"] = grad_clip if zero.stage else 0.0
    settings["steps_per_print"] = None
    # Its own default would take 2 GB for a bucket, whatever the model.
    bucket = {"reduce_bucket_size": min(_LARGEST_BUCKET, num_parameters)}
    settings["zero_optimization"] = bucket | dict(settings.get("zero_optimization", {})) | _zero_section(zero)
    if precision != "fp32" and accumulation > 1 and zero.stage > 1:
        # Else a micro-batch's gradient would be added to the others' in 8 or 11 bits. Stage 1 has no such choice.
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    if precision == "bf16":
        settings["bf16"] = {"enabled": True}
    if precision == "fp16":
        # As the native engine's scaler begins, grows and shrinks.
        settings["fp16"] = {
            "enabled": True,
            "initial_scale_power": 16,
            "loss_scale_window": 2000,
            "hysteresis": 1,
        }
    return settings


def _zero_section(zero: Zero) -> dict[str, Any]:
    section: dict[str, Any] = {"stage": zero.stage}
    for key, wanted in (
        ("offload_optimizer", zero.offload_optimizer),
        ("offload_param", zero.offload_parameters),
    ):
        given = zero.settings.get("zero_optimization", {}).get(key) or {}
        section[key] = {**given, "device": "cpu"} if wanted else None
    return section


def _read(path: str | None) -> dict[str, Any]:
    """The file's settings without those that it leaves to whoever reads it ("auto")."""
    if path is None:
        return {}
    try:
        settings = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"deepspeed.settings={path} cannot be read as JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"deepspeed.settings={path} holds {type(settings).__name__}, expected an object")
    for key in _REFUSED:
        if key in settings:
            raise ConfigError(
                f"deepspeed.settings={path}: {key!r} is not DeepSpeed's to decide in a run of ours; remove it, "
                f"and use the run's own keys"
            )
    cleaned: dict[str, Any] = _without_auto(settings)
    return cleaned


def _without_auto(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_auto(inner) for key, inner in value.items() if inner != "auto"}


def _of_layout(config: RunConfig, layout: Layout) -> str | None:
    if layout.dp_shard > 1:
        return (
            f"parallel.dp_shard={layout.dp_shard} is FSDP2's; leave it out and choose deepspeed.zero_stage instead"
        )
    if config.parallel.reshard_after_forward != "auto":
        return (
            f"parallel.reshard_after_forward={config.parallel.reshard_after_forward} is FSDP2's; leave it out, "
            f"deepspeed.settings has stage3_max_live_parameters"
        )
    if config.parallel.overlap:
        return "parallel.overlap=true has not been proven with it; set it to false, or parallel.engine=native"
    return None


def _of_stage(zero: Zero, precision: PrecisionName) -> str | None:
    if zero.stage == 0 and precision != "fp32":
        return (
            f"deepspeed.zero_stage=0 with train.precision={precision} takes a gradient norm that leaves out the "
            f"tracks of other ranks; set deepspeed.zero_stage=1"
        )
    if zero.stage == 0 and zero.offload_optimizer:
        return "deepspeed.offload_optimizer=true needs deepspeed.zero_stage of 1 or more, not 0"
    if zero.offload_parameters and zero.stage < 3:
        return f"deepspeed.offload_parameters=true needs deepspeed.zero_stage=3, not {zero.stage}"
    if zero.offload_parameters and not zero.offload_optimizer:
        return "deepspeed.offload_parameters=true needs deepspeed.offload_optimizer=true"
    return None


def _of_training(config: RunConfig, precision: PrecisionName) -> str | None:
    if config.train.compile != "off":
        return f"train.compile={config.train.compile} does not work with its hooks; set train.compile=off"
    if config.train.ledger:
        return "train.ledger=true knows no formula of its collectives; set it to false, or parallel.engine=native"
    if config.train.freeze and precision != "fp32":
        return (
            f"train.freeze with train.precision={precision} would round the frozen weights, which have no fp32 "
            f"masters; set train.precision=fp32, or parallel.engine=native"
        )
    return None
