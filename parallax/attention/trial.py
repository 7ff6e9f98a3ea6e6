"""Whether compiled kernels can be used: what is installed may not import, be made for other cards, or be wrong."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

Attention = Callable[..., Tensor]
"""Tensors, of all of which there are gradients, to the output."""

_LEAST_CAPABILITY = (8, 0)
_TOLERANCE = 2e-2


def load_package(label: str, module: str) -> Any:
    """The module, or in one line why the package that people know by `label` cannot be used."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.partition(".")[0]:
            return f"{label} is not installed"
        return f"{label} is installed but hollow: {first_line(error)}"
    except Exception as error:  # a mismatched extension fails with whatever the loader raises
        return f"{label} is installed but does not import: {first_line(error)}"


def why_no_recent_gpu(label: str, device: torch.device) -> str | None:
    """Why what needs sm_80 cannot run on a CUDA device, or None."""
    if not torch.cuda.is_available():
        return "this PyTorch sees no CUDA device"
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < _LEAST_CAPABILITY:
        return f"{label} needs sm_80 or later, this device is sm_{major}{minor}"
    return None


def with_index(device: torch.device) -> torch.device:
    """`cuda` as the `cuda:N` that it stands for: verdicts are kept by device."""
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def why_distrusted(label: str, device: torch.device, measure: Callable[[], float]) -> str | None:
    """Why kernels cannot be trusted on a device; None: the error measured there is one that fp16 explains."""
    try:
        worst = measure()
    except Exception as error:  # a binary built for other cards raises what its launcher raises
        return f"{label} failed its trial on {device}: {first_line(error)}"
    if not worst <= _TOLERANCE:  # also false for NaN
        return f"{label} gave wrong numbers on {device}: error {worst:.1e}, at most {_TOLERANCE:.0e} allowed"
    return None


def trial_error(
    found: Attention, exact: Attention, shapes: Sequence[tuple[int, ...]], device: torch.device
) -> float:
    """Worst error of output and gradients in fp16 against the definition in fp32, relative to the largest value.

    Args:
        found: what is tried.
        exact: the definition.
        shapes: of the inputs.
        device: where.
    """
    source = torch.Generator().manual_seed(0)
    # Whoever asks may be tracing with tensors that hold no numbers, or decoding without gradients.
    with (
        unset_fake_temporarily(),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        drawn = [torch.randn(shape, generator=source, device="cpu").half() for shape in shapes]
        halves = [t.to(device).requires_grad_() for t in drawn]
        wides = [t.to(device).float().requires_grad_() for t in drawn]
        outputs = found(*halves), exact(*wides)
        grad = torch.randn(outputs[1].shape, generator=source, device="cpu").half().to(device)
        pairs = [
            outputs,
            *zip(
                torch.autograd.grad(outputs[0], halves, grad),
                torch.autograd.grad(outputs[1], wides, grad.float()),
                strict=True,
            ),
        ]
        errors = [((half.float() - wide).abs().max() / wide.abs().max()).detach() for half, wide in pairs]
        return float(torch.stack(errors).max())


def first_line(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
