import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from parallax.attention.softmax.eager import EagerSoftmax
from parallax.attention.softmax.sdpa import SdpaSoftmax

_LEAST_CAPABILITY = (8, 0)
_WIDEST_HEAD = 256
_HALF = (torch.float16, torch.bfloat16)
_PROBE_SHAPES = ((2, 4, 24, 64), (2, 2, 40, 64))
_PROBE_TOLERANCE = 2e-2


class FlashSoftmax:
    """The flash-attn 2 package, for causal attention in fp16 and bf16 on GPUs from sm_80 on.

    The package takes no mask, no fp32 and no head wider than 256: PyTorch's fused attention serves such calls.
    """

    name = "flash"

    def __init__(self) -> None:
        self._fused = SdpaSoftmax()

    def unavailable(self, device: torch.device) -> str | None:
        """Needs CUDA, sm_80, a package that imports, and right numbers in a small trial on the device."""
        if device.type != "cuda":
            return f"flash-attn is made for CUDA, not for {device.type}"
        found = _load()
        if isinstance(found, str):
            return found
        if not torch.cuda.is_available():
            return "this PyTorch sees no CUDA device"
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < _LEAST_CAPABILITY:
            return f"flash-attn 2 needs sm_80 or later, this device is sm_{major}{minor}"
        index = torch.cuda.current_device() if device.index is None else device.index
        return _prove(torch.device("cuda", index))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`."""
        if mask is not None or q.dtype not in _HALF or q.shape[3] > _WIDEST_HEAD:
            return self._fused.attend(q, k, v, mask)
        return flash_causal(_load(), q, k, v)


def flash_causal(package: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(E)) v by `package`; its layout is (B, T, H, E), its triangle ends lower right."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    exact = torch.are_deterministic_algorithms_enabled()
    attended: Tensor = package.flash_attn_func(q, k, v, causal=True, deterministic=exact)
    return attended.transpose(1, 2)


@functools.cache
def _load() -> Any:
    """The package, or in one line why it cannot be used."""
    try:
        return importlib.import_module("flash_attn")
    except ModuleNotFoundError as error:
        if error.name == "flash_attn":
            return "flash-attn is not installed"
        return f"flash-attn is installed but hollow: {_first_line(error)}"
    except Exception as error:  # a mismatched extension fails with whatever the loader raises
        return f"flash-attn is installed but does not import: {_first_line(error)}"


@functools.cache
def _prove(device: torch.device) -> str | None:
    """Why the package cannot be trusted on `device`, once a process; None: its numbers are eager's."""
    try:
        worst = probe_error(_load(), device)
    except Exception as error:  # a wheel built for other cards raises what its launcher raises
        return f"flash-attn failed its trial on {device}: {_first_line(error)}"
    if not worst <= _PROBE_TOLERANCE:  # also false for NaN
        return (
            f"flash-attn gave wrong numbers on {device}: error {worst:.1e}, at most {_PROBE_TOLERANCE:.0e} allowed"
        )
    return None


def probe_error(package: Any, device: torch.device) -> float:
    """Worst error of output and gradients in fp16 against eager in fp32, relative to the largest value."""
    source = torch.Generator().manual_seed(0)
    shapes = (_PROBE_SHAPES[0], _PROBE_SHAPES[1], _PROBE_SHAPES[1], _PROBE_SHAPES[0])
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        *inputs, grad = (torch.randn(s, generator=source, device="cpu").half().to(device) for s in shapes)
        halves = [t.clone().requires_grad_() for t in inputs]
        wides = [t.float().requires_grad_() for t in inputs]
        found = flash_causal(package, *halves)
        q, k, v = wides
        exact = EagerSoftmax().attend(q, k, v, None)
        pairs = [(found, exact)]
        gradients = torch.autograd.grad(found, halves, grad), torch.autograd.grad(exact, wides, grad.float())
        pairs += zip(*gradients, strict=True)
        errors = [((a.float() - b).abs().max() / b.abs().max()).detach() for a, b in pairs]
        return float(torch.stack(errors).max())


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
