from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from parallax.attention.softmax.sdpa import SdpaSoftmax

_CHUNK_QUERIES = 128
_LONGEST = 1024
_WIDE_HEAD = 64


class ChunkedSoftmax:
    """Causal attention as batched matrix products over chunks of queries, for training on the CPU.

    PyTorch's fused CPU kernel runs at a fraction of the rate of matrix products, so writing the scores down
    wins while they are small. The fused kernel takes over where it is as good or better: with a mask or
    earlier keys in a cache, in fp32 and fp64 with narrow heads, and above 1,024 tokens, where the kept
    probabilities would outgrow the other activations.
    """

    name = "chunked"

    def __init__(self) -> None:
        self._fused = SdpaSoftmax()

    def unavailable(self, device: torch.device) -> str | None:
        """Made for the CPU; GPUs have fused kernels that are faster."""
        return None if device.type == "cpu" else f"made for the CPU, not for {device.type}"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See `AttentionBackend.attend`."""
        num_queries, num_keys = q.shape[2], k.shape[2]
        pays = q.dtype in (torch.bfloat16, torch.float16) or q.shape[3] >= _WIDE_HEAD
        if mask is None and pays and 1 < num_queries == num_keys <= _LONGEST:
            return chunked_causal_attention(q, k, v)
        return self._fused.attend(q, k, v, mask)


def chunked_causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(E)) v with j <= i, for q (B, H, T, E) and k, v (B, G, T, E); see `_ChunkedCausal`."""
    result: Tensor = _ChunkedCausal.apply(q, k, v)  # type: ignore[no-untyped-call]
    return result


class _ChunkedCausal(torch.autograd.Function):
    """Per chunk of queries, over the keys up to its end only, with P the probabilities and g = dL/do:

        o = P V        dV += P^T g      dS = P * (g V^T - rowsum(g * o))
        dQ = dS K / sqrt(E)             dK += dS^T Q / sqrt(E)

    The query heads of one key head are stacked as rows of one product. Products are in the inputs' type;
    softmax, dS and the sums over chunks are fp32 (fp64).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            batch, heads, length, width = q.shape
            groups = k.shape[1]
            queries = (q * width**-0.5).reshape(batch * groups, heads // groups, length, width)
            keys, values = (t.reshape(batch * groups, length, width) for t in (k, v))
            output = torch.empty_like(queries)
            kept = []
            for start in range(0, length, _CHUNK_QUERIES):
                stop = min(start + _CHUNK_QUERIES, length)
                scores = torch.bmm(queries[:, :, start:stop].flatten(1, 2), keys[:, :stop].transpose(1, 2))
                probabilities = _causal_softmax(scores, start, stop).to(q.dtype)
                attended = torch.bmm(probabilities, values[:, :stop])
                output[:, :, start:stop] = attended.view(batch * groups, -1, stop - start, width)
                kept.append(probabilities)
            ctx.save_for_backward(queries, keys, values, output, *kept)
            return output.view(q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, output, *kept = ctx.saved_tensors
        wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
        grads = grad.reshape(queries.shape)
        means = (grads.to(wide) * output).sum(-1, keepdim=True)
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = (torch.zeros_like(t, dtype=wide) for t in (keys, values))
        for number, probabilities in enumerate(kept):
            start, stop = number * _CHUNK_QUERIES, probabilities.shape[2]
            rows = grads[:, :, start:stop].flatten(1, 2)
            grad_scores = torch.bmm(rows, values[:, :stop].transpose(1, 2)).to(wide)
            grad_scores.sub_(means[:, :, start:stop].flatten(1, 2)).mul_(probabilities)
            narrow = grad_scores.to(grad.dtype)
            grad_values[:, :stop] += torch.bmm(probabilities.transpose(1, 2), rows)
            grad_keys[:, :stop] += torch.bmm(narrow.transpose(1, 2), queries[:, :, start:stop].flatten(1, 2))
            chunk = torch.bmm(narrow, keys[:, :stop])
            grad_queries[:, :, start:stop] = chunk.view(len(chunk), -1, stop - start, chunk.shape[2])
        shape = (grad.shape[0], -1, *grad.shape[2:])
        return (
            (grad_queries * grad.shape[-1] ** -0.5).view(grad.shape),
            grad_keys.to(grad.dtype).view(shape),
            grad_values.to(grad.dtype).view(shape),
        )


def _causal_softmax(scores: Tensor, start: int, stop: int) -> Tensor:
    """(N, R * c, S) scores of the queries [start, stop), R heads of them, as fp32 (fp64) probabilities."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    future = torch.ones(stop - start, stop - start, dtype=torch.bool, device=scores.device).triu_(1)
    wide.view(len(wide), -1, stop - start, stop)[..., start:].masked_fill_(future, float("-inf"))
    return wide.softmax(-1)
