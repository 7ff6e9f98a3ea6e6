from torch import Tensor

from parallax.attention.plla.choice import choose
from parallax.attention.plla.shapes import check_decoding, check_mask, check_training


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
    check_training(q, r, k, v, window)
    check_mask(q, k, window, mask)
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
    check_decoding(q, r, k, v)
    scale = q.shape[-1] ** -0.5 if qk_scale is None else qk_scale
    return chosen.decode(q, r, k, v, scale)
