import torch
from torch import Tensor


def parallax_decode(q: Tensor, r: Tensor, k: Tensor, v: Tensor, qk_scale: float | None = None) -> Tensor:
    """PLLA of one new query a row over all keys of a cache.

    q and r are rows of one product with the keys, and so are the heads of a key head: keys are read once.

    Args:
        q: (B, 1, H, D) queries.
        r: (B, 1, H, D) directions of the correction.
        k: (B, S, G, D) keys, the last of them the query's own.
        v: (B, S, G, D) values.
        qk_scale: of q.k; D^-0.5 unless given.

    Returns:
        (B, 1, H, D).
    """
    batch, _, heads, width = q.shape
    groups = k.shape[2]
    scale = width**-0.5 if qk_scale is None else qk_scale
    rows = torch.cat([t.view(batch, groups, -1, width) for t in (q * scale, r)], dim=2)
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    scores, u = (
        (rows @ keys.mT).float().chunk(2, dim=2) if q.dtype != torch.float64 else (rows @ keys.mT).chunk(2, 2)
    )
    p = scores.softmax(-1)
    u = u - u[..., -1:]
    weights = p * (1 + (p * u).sum(-1, keepdim=True) - u)
    return (weights.to(v.dtype) @ values).reshape(batch, 1, heads, width)
