import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parallax.config.statement import Statement
from parallax.errors import ConfigError

_NUMBERS = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "accumulation",
    "gradient_clipping": "optim.grad_clip",
}
_OURS = {"optimizer": "optim.*", "scheduler": "optim.schedule"}
_UNKNOWN_HERE = ("data_types", "torch_autocast", "tensor_parallel", "hybrid_engine", "amp")
"""Sections that change the arithmetic, or who owns what, behind the engine's back."""


def read_settings(path: str) -> dict[str, Any]:
    """DeepSpeed's settings as its own JSON file has them.

    Raises:
        ConfigError: there is no such file, or it holds no JSON object.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file of DeepSpeed settings; see configs/deepspeed/") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected a JSON object of DeepSpeed settings, found {settings!r}")
    return settings


def settings_statements(settings: dict[str, Any], place: str) -> list[Statement]:
    """What DeepSpeed's settings say about keys of the run configuration; `auto` says nothing.

    Raises:
        ConfigError: they ask for what only the run configuration may say, or what no engine here does.
    """
    for section, keys in _OURS.items():
        if any(value != "auto" for value in _leaves(settings.get(section, {}))):
            raise ConfigError(
                f"{place} has a section {section!r}; {keys} of the run configuration says that: remove it"
            )
    for section in _UNKNOWN_HERE:
        if section in settings:
            raise ConfigError(f"{place} has a section {section!r}, which no engine here knows; remove it")
    found = [
        Statement(key, settings[name], f"{name}={settings[name]}", place)
        for name, key in _NUMBERS.items()
        if settings.get(name, "auto") != "auto"
    ]
    return [*found, *_precision(settings, place), *_zero(settings, place)]


def _precision(settings: dict[str, Any], place: str) -> Iterator[Statement]:
    """bf16 and fp16 have a switch each; a file that has one, and turns none on, asks for fp32."""
    switches = {name: _section(settings, name, place).get("enabled", "auto") for name in ("bf16", "fp16")}
    on = [name for name, switch in switches.items() if switch is True]
    if len(on) == 2:
        raise ConfigError(f"{place} says bf16.enabled=true and fp16.enabled=true; turn one of them off")
    if on:
        yield Statement("train.precision", on[0], f"{on[0]}.enabled=true", place)
    elif False in switches.values() and "auto" not in {switches[name] for name in settings.keys() & switches}:
        off = next(name for name, switch in switches.items() if switch is False)
        yield Statement("train.precision", "fp32", f"{off}.enabled=false", place)


def _zero(settings: dict[str, Any], place: str) -> Iterator[Statement]:
    zero = _section(settings, "zero_optimization", place)
    stage = zero.get("stage", "auto")
    if stage != "auto":
        yield Statement("deepspeed.zero_stage", stage, f"zero_optimization.stage={stage}", place)
    for name, key in (("offload_optimizer", "offload_optimizer"), ("offload_param", "offload_parameters")):
        device = _section(zero, name, place).get("device", "auto")
        if device == "auto":
            continue
        yield Statement(f"deepspeed.{key}", offloads(device, name, place), f"{name}.device={device}", place)


def offloads(device: str, name: str, place: str) -> bool:
    """Whether DeepSpeed's word for a place of storage means the host.

    Raises:
        ConfigError: it is neither `cpu` nor `none`.
    """
    if device not in {"cpu", "none"}:
        raise ConfigError(f"{place} says {name}.device={device}; only cpu and none work here")
    return device == "cpu"


def _section(settings: dict[str, Any], name: str, place: str) -> dict[str, Any]:
    section = settings.get(name) or {}
    if not isinstance(section, dict):
        raise ConfigError(f"{place} says {name}={section!r}; expected an object of settings")
    return section


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    else:
        yield value
