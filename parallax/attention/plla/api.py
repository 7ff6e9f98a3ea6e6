import torch
from torch import Tensor

from parallax.attention.plla.choice import choose


def parallax_func(
    q: Tensor,
    r: Tensor,
    k: Tensor,
    v: Tensor,
    qk_scale: float | None = None,
    *,
    window: int | None = None,
    mask: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Causal parameterized local linear attention; see `parallax.attention.plla` for what is computed.

    Args:
        q: (B, H, T, D) queries, the last T of S positions.
        r: (B, H, T, D) directions of the correction.
        k: (B, G, S, D) keys; query head h reads key head h // (H / G).
        v: (B, G, S, D) values.
        qk_scale: of q.k only, never of r.k; D^-0.5 unless given.
        window: how many of the newest keys a query sees, its own among them (flash-attn's window_size=(W, 0)
            has one more); None: all up to its own.
        mask: (B or 1, 1, T, S) boolean, true where a query may look, instead of the causal triangle and window;
            for packed documents that of `parallax.model.documents.document_mask`. A query that sees no key gives
            zero.
        backend: `triton`, `chunked`, `eager` (the reference), or auto: what PARALLAX_PLLA_BACKEND names, else the
            first of them that runs on q's device; `explain()` says which and why.

    Returns:
        (B, H, T, D), of q's type.

    Raises:
        ValueError: shapes that do not fit, a window below 1, or a mask and a window.
        BackendError: an unknown backend, or one that was asked for by name and cannot run here.
    """
    _check(q, r, k, v, window)
    _check_mask(q, k, window, mask)
    scale = q.shape[-1] ** -0.5 if qk_scale is None else qk_scale
    # A window beyond all keys, such as sys.maxsize, would leave the 32 bits in which places are counted.
    window = None if window is None else min(window, k.shape[2])
    return choose(backend, q.device).compute(q, r, k, v, scale, window, mask)


def parallax_decode(
    q: Tensor, r: Tensor, k: Tensor, v: Tensor, qk_scale: float | None = None, *, backend: str = "auto"
) -> Tensor:
    """PLLA of one new query a row over all keys of a cache.

    Args:
        q: (B, 1, H, D) queries.
        r: (B, 1, H, D) directions of the correction.
        k: (B, S, G, D) keys, the last of them the query's own.
        v: (B, S, G, D) values.
        qk_scale: of q.k; D^-0.5 unless given.
        backend: as in `parallax_func`.

    Returns:
        (B, 1, H, D).

    Raises:
        ValueError: shapes that do not fit, or more than one query a row.
        BackendError: as in `parallax_func`.
    """
    chosen = choose(backend, q.device)
    if q.dim() == 4 and q.shape[1] != 1:
        raise ValueError(f"q is {tuple(q.shape)}: decoding takes one query a row, (B, 1, H, D)")
    heads_first = [t.transpose(1, 2) if t.dim() == 4 else t for t in (q, r, k, v)]
    _check(heads_first[0], heads_first[1], heads_first[2], heads_first[3], None)
    scale = q.shape[-1] ** -0.5 if qk_scale is None else qk_scale
    return chosen.decode(q, r, k, v, scale)


def _check(q: Tensor, r: Tensor, k: Tensor, v: Tensor, window: int | None) -> None:
    for name, tensor in zip("qrkv", (q, r, k, v), strict=True):
        if tensor.dim() != 4:
            raise ValueError(f"{name} is {tuple(tensor.shape)}; expected four dimensions")
    if q.shape != r.shape:
        raise ValueError(f"q is {tuple(q.shape)} and r {tuple(r.shape)}; they have one shape, (B, H, T, D)")
    if k.shape != v.shape:
        raise ValueError(f"k is {tuple(k.shape)} and v {tuple(v.shape)}; they have one shape, (B, G, S, D)")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q is {tuple(q.shape)} and k {tuple(k.shape)}; batch and width must be equal")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"{k.shape[1]} key heads do not divide {q.shape[1]} query heads")
    if q.shape[2] > k.shape[2]:
        raise ValueError(f"{q.shape[2]} queries and {k.shape[2]} keys; queries are the last positions of the keys")
    if window is not None and window < 1:
        raise ValueError(f"window={window}: a query sees its own key at least, so it is 1 or more")


def _check_mask(q: Tensor, k: Tensor, window: int | None, mask: Tensor | None) -> None:
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
