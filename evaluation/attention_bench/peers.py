"""Kernels of other packages, for GPUs. None of this has run on a GPU: written from the packages' documentation."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from evaluation.attention_bench.contenders import Absent, Contender
from evaluation.attention_bench.inputs import Inputs
from evaluation.attention_bench.reasons import first_line
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import PLLA, SOFTMAX, Attend, Family, Task
from parallax.attention.select import explain

_HALF = (torch.float16, torch.bfloat16)
_WIDEST_HEAD = 256


def peers(task: Task, device: torch.device, include_fa3: bool) -> list[Contender | Absent]:
    """flash-attn 2, flash-attn 3 where it is asked for, and PLLA of flash-linear-attention."""
    found = [_flash_2(task, device)]
    if include_fa3:
        found.append(_package(task, device, "flash-attn 3", "flash_attn_interface", SOFTMAX, _flash))
    found.append(_package(task, device, "fla", _FLA_MODULES[task.name], PLLA, _fla))
    return found


_FLA_MODULES = {"train": "fla.ops.parallax.parallel", "decode": "fla.ops.parallax.decode"}
_FLA_NAMES = {
    "train": ("parallel_parallax",),
    "decode": ("parallax_decode_onestep", "parallax_decode_one_step"),  # newer and older name
}


def _flash_2(task: Task, device: torch.device) -> Contender | Absent:
    # The same package, with the same demands, as the backend that models can choose.
    state = dict(explain("softmax", device))["flash"]
    if state != "available":
        return Absent("flash-attn 2", SOFTMAX, state)
    return _package(task, device, "flash-attn 2", "flash_attn", SOFTMAX, _flash)


def _package(
    task: Task,
    device: torch.device,
    name: str,
    module: str,
    family: Family,
    bind: Callable[[Task, Any], Attend],
) -> Contender | Absent:
    if device.type != "cuda":
        return Absent(name, family, f"made for CUDA, not for {device.type}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations inside the packages
            attend = bind(task, importlib.import_module(module))
    except Exception as error:  # a mismatched extension fails with whatever the loader raises
        return Absent(name, family, f"{module} does not import: {first_line(error)}")
    return Contender(name, family, attend, refuses=_refuses)


def _refuses(shape: Shape, dtype: torch.dtype) -> str | None:
    if dtype not in _HALF:
        return "takes fp16 and bf16"
    return f"takes heads of {_WIDEST_HEAD} numbers at most" if shape.width > _WIDEST_HEAD else None


def _flash(task: Task, package: Any) -> Attend:
    """Both versions: one name for training, one for a cache. Their window has the query's own key beside it."""
    call = package.flash_attn_func if task.gradients else package.flash_attn_with_kvcache

    def attend(given: Inputs) -> Tensor:
        window = (-1, -1) if given.window is None else (given.window - 1, 0)
        operands = (t.transpose(1, 2) for t in (given.q, given.k, given.v))
        result = call(*operands, causal=True, window_size=window)
        # Some releases of version 3 give the log-sums as well.
        output: Tensor = result[0] if isinstance(result, tuple) else result
        return output.transpose(1, 2)

    return attend


def _fla(task: Task, package: Any) -> Attend:
    """It copies what does not lie as (B, T, H, D) in memory, which is the layout on CUDA."""
    names = [name for name in _FLA_NAMES[task.name] if name in vars(package)]
    if not names:
        raise ImportError(f"it has no {' or '.join(_FLA_NAMES[task.name])}")
    call = vars(package)[names[0]]

    def attend(given: Inputs) -> Tensor:
        operands = (t.transpose(1, 2) for t in (given.q, given.r, given.k, given.v))
        output: Tensor = call(*operands, window_size=given.window)
        return output.transpose(1, 2)

    return attend
