import functools

import torch
from torch import Tensor
from torch.utils import _triton

from parallax.attention.plla.backends import ChunkedPlla, EagerPlla, need_gradients
from parallax.attention.plla.protocol import PllaBackend
from parallax.attention.plla.triton.tiles import widest_head
from parallax.attention.trial import (
    Attention,
    load_package,
    trial_error,
    why_distrusted,
    why_no_recent_gpu,
    with_index,
)

_KERNELS = ("parallax.attention.plla.triton.operators", "parallax.attention.plla.triton.decode_operator")
_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_WIDEST_DECODED_HEAD = 256
_TRIAL_SHAPES = ((2, 4, 150, 64), (2, 4, 150, 64), (2, 2, 200, 64), (2, 2, 200, 64))


class TritonPlla:
    """Kernels in Triton, for CUDA from sm_80 on; they have never run on a GPU.

    They take no float64 and no head wider than 256 (128 in fp32), the one that decodes no mask and no gradient.
    Such calls the chunked path serves.
    """

    name = "triton"

    def __init__(self) -> None:
        self._chunked = ChunkedPlla()

    def unavailable(self, device: torch.device) -> str | None:
        """Needs CUDA, sm_80, a Triton that imports and compiles, and right numbers in a trial on the device."""
        if device.type != "cuda":
            return f"the Triton kernels are made for CUDA, not for {device.type}"
        # Older devices have tensor cores that Triton does not use: 10 KiB of spilled registers instead.
        why_not = why_no_recent_gpu("Triton's use of tensor cores", device) or _why_no_triton()
        return why_not or _prove(with_index(device))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`; q has 2 H heads, the directions r and behind them the queries."""
        r, queries = q.chunk(2, dim=1)
        scale = q.shape[-1] ** -0.5
        if q.shape[2] > 1:
            return self.compute(queries, r, k, v, scale, mask=mask)
        if mask is not None:
            return self._chunked.attend(q, k, v, mask)
        queries, r, k, v = (t.transpose(1, 2) for t in (queries, r, k, v))
        return self.decode(queries, r, k, v, scale).transpose(1, 2)

    def compute(
        self,
        q: Tensor,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """See `PllaBackend.compute`."""
        if q.dtype not in _TYPES or q.shape[3] > widest_head(q.element_size()):
            return self._chunked.compute(q, r, k, v, scale, window, mask)
        # Needs Triton, so not at the top; by then it has been imported, which a compiler can follow.
        from parallax.attention.plla.triton.operators import triton_plla

        return triton_plla(q, r, k, v, scale, window, mask)

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """See `PllaBackend.decode`."""
        if q.dtype not in _TYPES or q.shape[3] > _WIDEST_DECODED_HEAD or need_gradients(q, r, k, v):
            return self._chunked.decode(q, r, k, v, scale)
        from parallax.attention.plla.triton.decode_operator import triton_decode

        return triton_decode(q, r, k, v, scale)


@functools.cache
def _why_no_triton() -> str | None:
    for module in ("triton", *_KERNELS):
        if isinstance(found := load_package("triton", module), str):
            return found
    return None if _triton.has_triton() else "triton is installed but compiles for no device here"


@functools.cache
def _prove(device: torch.device) -> str | None:
    """Why the kernels cannot be trusted on `device`, once a process; None: their numbers are eager's."""
    return why_distrusted("the Triton backend", device, lambda: probe_error(device))


def probe_error(device: torch.device) -> float:
    """Of a small causal attention with grouped heads, with documents apart too, and of decoding after it."""
    return trial_error(_trial_of(TritonPlla()), _trial_of(EagerPlla()), _TRIAL_SHAPES, device)


def _trial_of(backend: PllaBackend) -> Attention:
    def attend(q: Tensor, r: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = q.shape[3] ** -0.5
        r = r * scale
        attended = backend.compute(q, r, k, v, scale)
        apart = backend.compute(q, r, k, v, scale, mask=_apart(q, k))
        q, r, k, v = (t.detach().transpose(1, 2) for t in (q[:, :, -1:], r[:, :, -1:], k, v))
        return torch.cat((attended, apart, backend.decode(q, r, k, v, scale).transpose(1, 2)), dim=2)

    return attend


def _apart(q: Tensor, k: Tensor) -> Tensor:
    """(1, 1, T, S): causal, over documents of 70 tokens."""
    places = torch.arange(k.shape[2], device=k.device)
    own = places[k.shape[2] - q.shape[2] :, None]
    return ((places <= own) & (places // 70 == own // 70))[None, None]
