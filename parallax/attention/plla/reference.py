import torch
from torch import Tensor


def parallax_reference(
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    qk_scale: float | None = None,
    *,
    window: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """PLLA written out, with every score in memory: the oracle of all backends, in fp64 for fp64, else in fp32.

    Args:
        q: (B, T, H, D) queries, the last T of S positions.
        r: (B, T, H, D) directions of the correction; zero: softmax attention.
        k: (B, S, G, D) keys; query head h reads key head h // (H / G).
        v: (B, S, G, D) values.
        qk_scale: of q.k; D^-0.5 unless given.
        window: how many of the newest keys a query sees, its own among them; None: all up to its own.
        mask: (B or 1, 1, T, S) boolean, true where a query may look; None: causal, within the window.

    Returns:
        (B, T, H, D), in q's type; zero where a query sees no key.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[2] // k.shape[2]
    queries, directions = (t.to(wide).transpose(1, 2) for t in (q, r))
    keys, values = (t.to(wide).transpose(1, 2).repeat_interleave(group, dim=1) for t in (k, v))
    seen = visible(q.shape[1], k.shape[1], window, q.device) if mask is None else mask
    scale = q.shape[-1] ** -0.5 if qk_scale is None else qk_scale
    scores = (scale * queries @ keys.mT).masked_fill(~seen, float("-inf"))
    # Where nothing is seen, softmax would give NaN; other NaN are the caller's, and stay.
    p = scores.softmax(-1).masked_fill(~seen.any(-1, keepdim=True), 0.0)
    u = directions @ keys.mT - own_keys(directions, keys)
    c = (p * u).sum(-1, keepdim=True)
    return (p * (1 + c - u) @ values).transpose(1, 2).to(q.dtype)


def own_keys(directions: Tensor, keys: Tensor) -> Tensor:
    """r.k of each query's own key, (B, H, T, 1), for (B, H, T, D) and (B, H, S, D): what u is centred at."""
    own = keys[:, :, keys.shape[2] - directions.shape[2] :]
    return (directions * own).sum(-1, keepdim=True)


def visible(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """(T, S) boolean: query i, the last T of S positions, sees its own key and those before it in the window."""
    own = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    places = torch.arange(num_keys, device=device)
    seen = places <= own
    return seen if window is None else seen & (places > own - window)
