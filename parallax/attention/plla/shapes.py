"""What the operator refuses, in the shapes that its callers gave."""

import torch
from torch import Tensor


def check_training(q: Tensor, r: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    """Raises ValueError for what is not q, r (B, H, T, D) and k, v (B, G, S, D), or a window below 1."""
    _check(q, r, k, v, ("(B, H, T, D)", "(B, G, S, D)"), heads=1)
    if q.shape[2] > k.shape[2]:
        raise ValueError(f"{q.shape[2]} queries and {k.shape[2]} keys; queries are the last positions of the keys")
    if window is not None and window < 1:
        raise ValueError(f"window={window}: a query sees its own key at least, so it is 1 or more")


def check_decoding(q: Tensor, r: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ValueError for what is not q, r (B, 1, H, D) and k, v (B, S, G, D)."""
    _check(q, r, k, v, ("(B, 1, H, D)", "(B, S, G, D)"), heads=2)
    if q.shape[1] != 1:
        raise ValueError(f"q and r are {tuple(q.shape)}; they have one shape, (B, 1, H, D): one query a row")


def _check(q: Tensor, r: Tensor, k: Tensor, v: Tensor, expected: tuple[str, str], heads: int) -> None:
    if q.shape != r.shape or q.dim() != 4:
        raise ValueError(f"q is {tuple(q.shape)} and r {tuple(r.shape)}; they have one shape, {expected[0]}")
    if k.shape != v.shape or k.dim() != 4:
        raise ValueError(f"k is {tuple(k.shape)} and v {tuple(v.shape)}; they have one shape, {expected[1]}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q is {tuple(q.shape)} and k {tuple(k.shape)}; batch and width must be equal")
    if q.shape[heads] % k.shape[heads]:
        raise ValueError(f"{k.shape[heads]} key heads do not divide {q.shape[heads]} query heads")


def check_mask(q: Tensor, k: Tensor, window: int | None, mask: Tensor | None) -> None:
    """Raises ValueError for a mask that is not (B or 1, 1, T, S) boolean, or that stands beside a window."""
    if mask is None:
        return
    if window is not None:
        raise ValueError(f"window={window} and a mask; a mask says all, so leave the window out")
    fits = mask.dtype == torch.bool and mask.dim() == 4 and mask.shape[0] in (1, q.shape[0])
    if not fits or mask.shape[1:] != (1, q.shape[2], k.shape[2]):
        raise ValueError(
            f"mask is {tuple(mask.shape)}, {str(mask.dtype).removeprefix('torch.')}; expected bool, "
            f"({q.shape[0]} or 1, 1, {q.shape[2]}, {k.shape[2]})"
        )
