from dataclasses import dataclass
from typing import Literal

import torch

from parallax.errors import BackendError

_SMALL_CARD_BYTES = 7 * 2**30
_BF16_CAPABILITY = (8, 0)


PrecisionName = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """What a training step computes in; master weights are fp32 in every case."""

    name: PrecisionName
    """fp32, bf16 or fp16."""
    autocast_dtype: torch.dtype | None
    """Type of the matrix products; None: no autocast."""
    scales_loss: bool
    """Whether the loss is scaled so that small gradients survive (fp16)."""
    reason: str
    """Why this one, for the person who reads the log."""


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """The device behind `auto`, `cpu`, `cuda` or `cuda:N`; auto takes this rank's GPU, else the CPU.

    Args:
        name: as the user gave it.
        local_rank: number of this process on its node; where no GPU is named, each takes its own.

    Raises:
        BackendError: no device has that name, or a GPU was asked for by name and is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BackendError(f"runtime.device={name}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if not torch.cuda.is_available():
            raise BackendError(f"runtime.device={name}: this PyTorch sees no CUDA device; use runtime.device=cpu")
        if index >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise BackendError(f"runtime.device={name}: the last CUDA device here is cuda:{last}; use that")
        return torch.device("cuda", index)
    return device


def resolve_precision(requested: PrecisionName | Literal["auto"], device: torch.device) -> Precision:
    """The precision behind `auto`, `fp32`, `bf16` or `fp16` on this device.

    auto: fp16 with loss scaling on CUDA before sm_80 and on cards under 7 GiB, bf16 on other CUDA devices
    and on CPUs with bf16 instructions, else fp32.

    Raises:
        BackendError: bf16 was asked for by name on a GPU that has none.
    """
    name, reason = (requested, "asked for") if requested != "auto" else _auto_precision(device)
    if name == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < _BF16_CAPABILITY:
        card = torch.cuda.get_device_name(device)
        raise BackendError(f"train.precision=bf16: {card} has no bf16 instructions; use train.precision=fp16")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return Precision(name, dtype, scales_loss=name == "fp16", reason=reason)


def _auto_precision(device: torch.device) -> tuple[PrecisionName, str]:
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < _BF16_CAPABILITY:
            return "fp16", f"sm_{capability[0]}{capability[1]} has no bf16 instructions"
        if torch.cuda.get_device_properties(device).total_memory < _SMALL_CARD_BYTES:
            return "fp16", "a card under 7 GiB"
        return "bf16", f"sm_{capability[0]}{capability[1]} has bf16 instructions"
    if device.type == "cpu" and cpu_has_bf16():
        return "bf16", "this CPU has bf16 instructions"
    return "fp32", f"this {device.type} has no bf16 instructions"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
