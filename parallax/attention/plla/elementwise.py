import torch
from torch import Tensor


def weigh(scores: Tensor, u: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, log-sum-exp and correction of rows of scores.

    Args:
        scores: (N, R, C, S) scale q.k, R query heads of a key head.
        u: (N, R, C, S) centred r.k.
        seen: (C, S) boolean.

    Returns:
        W (N, R, C, S) = p (1 + c - u) in the type of the scores, and lse and c (N, R, C), fp32 or wider.
    """
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    masked = scores.to(wide).masked_fill(~seen, float("-inf"))
    lse = masked.logsumexp(-1, keepdim=True)
    p = (masked - lse).exp()
    shifts = u.to(wide)
    c = (p * shifts).sum(-1, keepdim=True)
    return (p * (1 + c - shifts)).to(scores.dtype), lse[..., 0], c[..., 0]


def score_gradients(
    scores: Tensor, u: Tensor, a: Tensor, seen: Tensor, lse: Tensor, c: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the backward needs of rows of scores, with a = g.v, mean(a) = E_p[a] and phi = g.o:

        W  = p (1 + c - u)
        ds = p [(a - phi) + (c - u) (a - mean(a))]
        du = -p (a - mean(a))

    Args:
        scores: (N, R, C, S), as in `weigh`.
        u: (N, R, C, S), as in `weigh`.
        a: (N, R, C, S) products of the output's gradient and values.
        seen: (C, S) boolean.
        lse: (N, R, C), from the forward.
        c: (N, R, C), from the forward.
        phi: (N, R, C).

    Returns:
        W, ds and du (N, R, C, S) in the type of the scores.
    """
    wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
    p = (scores.to(wide).masked_fill(~seen, float("-inf")) - lse[..., None]).exp()
    products, rest = a.to(wide), c[..., None] - u.to(wide)
    centred = products - (p * products).sum(-1, keepdim=True)
    weights = p * (1 + rest)
    ds = p * ((products - phi[..., None]) + rest * centred)
    return weights.to(scores.dtype), ds.to(scores.dtype), (-p * centred).to(scores.dtype)
