import functools
from typing import Any

import torch
from torch import Tensor

from parallax.attention.softmax.eager import EagerSoftmax
from parallax.attention.softmax.sdpa import SdpaSoftmax
from parallax.attention.trial import load_package, trial_error, why_distrusted, why_no_recent_gpu, with_index

_WIDEST_HEAD = 256
_HALF = (torch.float16, torch.bfloat16)
_TRIAL_SHAPES = ((2, 4, 24, 64), (2, 2, 40, 64), (2, 2, 40, 64))


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
        return why_no_recent_gpu("flash-attn 2", device) or _prove(with_index(device))

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
    return load_package("flash-attn", "flash_attn")


@functools.cache
def _prove(device: torch.device) -> str | None:
    """Why the package cannot be trusted on `device`, once a process; None: its numbers are eager's."""
    return why_distrusted("flash-attn", device, lambda: probe_error(_load(), device))


def probe_error(package: Any, device: torch.device) -> float:
    """Of a small causal attention with grouped heads; see `trial_error`."""
    return trial_error(
        lambda q, k, v: flash_causal(package, q, k, v),
        lambda q, k, v: EagerSoftmax().attend(q, k, v, None),
        _TRIAL_SHAPES,
        device,
    )
