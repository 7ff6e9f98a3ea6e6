"""What accelerate asks of a run: its launcher tells by environment variables, its configuration file by keys."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parallax.config.deepspeed_json import offloads
from parallax.config.statement import Statement
from parallax.config.yaml_strict import parse_yaml
from parallax.errors import ConfigError

PLACE = "accelerate's configuration"
_DEEPSPEED = {
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "gradient_clipping": "ACCELERATE_GRADIENT_CLIPPING",
    "offload_optimizer_device": "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
    "deepspeed_config_file": "ACCELERATE_DEEPSPEED_CONFIG_FILE",
}
_FSDP_DEFAULTS = {
    "FSDP_VERSION": "1",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}
_AXES = {"DP_SHARD_SIZE": "parallel.dp_shard", "DP_REPLICATE_SIZE": "parallel.dp_replicate"}

ALL_RANKS = "all"
"""As a number of shards: every rank that the track axis and the copies leave."""


def read_file(path: str) -> dict[str, Any]:
    """A configuration file of accelerate.

    Raises:
        ConfigError: there is no such file, or it is none.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"), source=path)
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path}: no such configuration file of accelerate; see configs/accelerate/") from None
    if not isinstance(content, dict) or "distributed_type" not in content:
        raise ConfigError(f"{path}: no configuration file of accelerate: it has no key distributed_type")
    return content


def environment_of(content: Mapping[str, Any]) -> dict[str, str]:
    """The variables that `accelerate launch` would make of a configuration file, as far as they are read here."""
    kind = content["distributed_type"]
    variables = {"ACCELERATE_MIXED_PRECISION": str(content.get("mixed_precision") or "no")}
    if kind == "FSDP":
        fsdp = {f"fsdp_{name.removeprefix('fsdp_')}": v for name, v in (content.get("fsdp_config") or {}).items()}
        stated = {name.upper(): str(value).lower() for name, value in fsdp.items()}
        variables |= {"ACCELERATE_USE_FSDP": "true"} | _FSDP_DEFAULTS | stated
    if kind == "DEEPSPEED":
        said = content.get("deepspeed_config") or {}
        variables |= {"ACCELERATE_USE_DEEPSPEED": "true"}
        variables |= {variable: str(said[name]) for name, variable in _DEEPSPEED.items() if name in said}
    return variables


def accelerate_statements(environment: Mapping[str, str], place: str = PLACE) -> list[Statement]:
    """What accelerate's launcher says about keys of the run configuration.

    `mixed_precision: no` and a setting that accelerate makes by itself say nothing.

    Raises:
        ConfigError: it asks for what does not exist here.
    """
    found = []
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision == "fp8":
        raise ConfigError(f"{place} says mixed_precision=fp8; bf16, fp16 and no work here")
    if precision != "no":
        found.append(Statement("train.precision", precision, f"mixed_precision={precision}", place))
    if _is_on(environment, "ACCELERATE_USE_MEGATRON_LM"):
        raise ConfigError(
            f"{place} says distributed_type=MEGATRON_LM; FSDP, DEEPSPEED, MULTI_GPU and NO work here"
        )
    if _is_on(environment, "ACCELERATE_USE_FSDP"):
        found += _fsdp(environment, place)
    if _is_on(environment, "ACCELERATE_USE_DEEPSPEED"):
        found += _deepspeed(environment, place)
    if _is_on(environment, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        found += _axes(environment, place)
    return found


def _fsdp(environment: Mapping[str, str], place: str) -> Iterator[Statement]:
    version = environment.get("FSDP_VERSION", "2")
    if version != "2":
        raise ConfigError(f"{place} says fsdp_version={version}; this is FSDP2: set fsdp_version: 2")
    if _is_on(environment, "FSDP_OFFLOAD_PARAMS"):
        raise ConfigError(
            f"{place} says fsdp_offload_params=true; weights are offloaded by DeepSpeed only: "
            f"configs/accelerate/zero3_offload.yaml"
        )
    asked = "distributed_type=FSDP"
    yield Statement("parallel.engine", "native", asked, place)
    yield Statement("parallel.dp_shard", ALL_RANKS, asked, place)
    if environment.get("FSDP_RESHARD_AFTER_FORWARD", "true") == "false":
        yield Statement("parallel.reshard_after_forward", False, "fsdp_reshard_after_forward=false", place)
    if _is_on(environment, "FSDP_ACTIVATION_CHECKPOINTING"):
        yield Statement("train.activation_checkpointing", True, "fsdp_activation_checkpointing=true", place)


def _deepspeed(environment: Mapping[str, str], place: str) -> Iterator[Statement]:
    yield Statement("parallel.engine", "deepspeed", "distributed_type=DEEPSPEED", place)
    said = {name: environment[variable] for name, variable in _DEEPSPEED.items() if variable in environment}
    keys = {"zero_stage": "deepspeed.zero_stage", "gradient_accumulation_steps": "accumulation"}
    for name, key in {**keys, "gradient_clipping": "optim.grad_clip"}.items():
        if said.get(name, "auto") != "auto":
            yield Statement(key, _number(said[name], name, place), f"{name}={said[name]}", place)
    offload = {"offload_optimizer_device": "offload_optimizer", "offload_param_device": "offload_parameters"}
    for name, key in offload.items():
        if name in said:
            yield Statement(f"deepspeed.{key}", offloads(said[name], name, place), f"{name}={said[name]}", place)
    if "deepspeed_config_file" in said:
        path = said["deepspeed_config_file"]
        yield Statement("deepspeed.settings", path, f"deepspeed_config_file={path}", place)


def _axes(environment: Mapping[str, str], place: str) -> Iterator[Statement]:
    prefix = "PARALLELISM_CONFIG_"
    for name in ("TP_SIZE", "CP_SIZE", "SP_SIZE"):
        if environment.get(prefix + name, "1") != "1":
            size = environment[prefix + name]
            raise ConfigError(
                f"{place} says {name.lower()}={size}; the axes here are track, dp_shard, dp_replicate"
            )
    for name, key in _AXES.items():
        size = environment.get(prefix + name, "1")
        if size != "1":
            yield Statement(key, int(size), f"{name.lower()}={size}", place)


def _number(text: str, name: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{place} says {name}={text}; expected a number or auto") from None


def _is_on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() in {"true", "1", "yes"}
