"""Parameterized local linear attention (PLLA): softmax attention less the covariance of r.k and v by its weights.

Per query with p = softmax(scale q.k), u_j = r.k_j, c = E_p[u] and mean value E_p[v]:

    o = E_p[v] (1 + c) - E_p[u v] = sum_j w_j v_j,    w_j = p_j (1 + c - u_j),    sum_j w_j = 1

With r = 0 it is softmax attention. `scale` is of q.k only. A vector added to every key changes nothing, so u is
centred at each query's own key, r.(k_j - k_own): otherwise two large sums would cancel where keys share a mean.
"""

from typing import Any

__all__ = ["explain"]


def __getattr__(name: str) -> Any:
    """`explain`, when it is first used: the registry that it asks imports the backends of this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from parallax.attention.plla.choice import explain

    return explain
