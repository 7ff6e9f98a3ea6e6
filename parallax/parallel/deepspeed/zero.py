from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parallax.config.deepspeed_json import read_settings
from parallax.config.run import RunConfig
from parallax.config.zero_rules import check_zero
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


def resolve_zero(config: RunConfig) -> Zero:
    """ZeRO as a run, whose strategy is settled, asks for it.

    Raises:
        ConfigError: what is asked for would be silently wrong or without effect.
    """
    check_zero(config)
    given = config.deepspeed
    return Zero(
        stage=2 if given.zero_stage is None else given.zero_stage,
        offload_optimizer=bool(given.offload_optimizer),
        offload_parameters=bool(given.offload_parameters),
        settings=_without_auto(read_settings(given.settings)) if given.settings else {},
    )


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


def _without_auto(value: Any) -> Any:
    """What the file leaves to whoever reads it is not there."""
    if not isinstance(value, dict):
        return value
    return {key: _without_auto(inner) for key, inner in value.items() if inner != "auto"}
