"""What happens between PLLA's matrix products, row by row of scores: one sweep where a compiler fuses it."""

import torch
from torch import Tensor


def weigh(
    products: Tensor, own: Tensor, first: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, log-sum-exp and correction of rows of scores.

    Args:
        products: (N, 2, R, C, S) r.k and behind it q.k, R query heads of a key head.
        own: (C,) the place of each query's own key, at which u is centred; the last that it sees.
        first: (C,) the place of the first key that it sees.
        mask: (N or 1, 1, C, S) boolean, true where a query may look, instead of from `first` to `own`.
        scale: of q.k.

    Returns:
        W (N, R, C, S) = p (1 + c - u) in the type of the products, and lse and c (N, R, C), fp32 or wider.
    """
    u, scores, seen = _centred(products, own, first, mask, scale)
    scores = torch.where(seen, scores, float("-inf"))
    # A row that sees nothing has weights of zero, not NaN.
    most = scores.amax(-1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
    powers = (scores - most).exp()
    total = powers.sum(-1, keepdim=True)
    share = 1 / total.clamp_min(torch.finfo(total.dtype).tiny)
    c = (powers * u).sum(-1, keepdim=True) * share
    weights = (powers * share) * (1 + c - u)
    return weights.to(products.dtype), (most + total.log())[..., 0], c[..., 0]


def score_gradients(
    products: Tensor,
    a: Tensor,
    own: Tensor,
    first: Tensor,
    mask: Tensor | None,
    scale: float,
    lse: Tensor,
    c: Tensor,
    phi: Tensor,
) -> tuple[Tensor, Tensor]:
    """What the backward needs of rows of scores, with a = g.v, mean(a) = E_p[a] and phi = g.o:

        W  = p (1 + c - u)
        ds = p [(a - phi) + (c - u) (a - mean(a))]
        du = -p (a - mean(a))

    Args:
        products: (N, 2, R, C, S), as in `weigh`.
        a: (N, R, C, S) products of the output's gradient and values.
        own: (C,), as in `weigh`.
        first: (C,), as in `weigh`.
        mask: as in `weigh`.
        scale: of q.k.
        lse: (N, R, C), from the forward.
        c: (N, R, C), from the forward.
        phi: (N, R, C).

    Returns:
        W (N, R, C, S), and (N, 2, R, C, S) du and behind it scale ds, in the type of the products.
    """
    u, scores, seen = _centred(products, own, first, mask, scale)
    p = torch.where(seen, (scores - lse[..., None]).exp(), 0.0)
    a, rest = a.to(scores.dtype), c[..., None] - u
    centred = a - (p * a).sum(-1, keepdim=True)
    weights = p * (1 + rest)
    ds = p * ((a - phi[..., None]) + rest * centred) * scale
    return weights.to(products.dtype), torch.stack((-p * centred, ds), dim=1).to(products.dtype)


def _centred(
    products: Tensor, own: Tensor, first: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Centred u and scaled scores (N, R, C, S), fp32 or wider, and which of them count."""
    wide = torch.promote_types(products.dtype, torch.float32)
    u, scores = products[:, 0].to(wide), products[:, 1].to(wide) * scale
    # From the same product, so that what rounding adds to the row's centre cancels.
    u = u - u.gather(-1, own[:, None].expand(*u.shape[:-1], 1))
    if mask is None:
        places = torch.arange(u.shape[-1], device=u.device)
        mask = (places <= own[:, None]) & (places >= first[:, None])
    return u, scores, mask
