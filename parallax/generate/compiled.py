import shutil
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from parallax.errors import BackendError
from parallax.model.cache import KVCache
from parallax.model.decoder import Decoder
from parallax.model.static_cache import StaticCacheView

_Storage = Sequence[Tensor]
_Step = Callable[[Decoder, Tensor, Tensor, _Storage, _Storage, tuple[int, int, int]], Tensor]


class CompiledStep:
    """One decoding step, compiled by torch.compile for a fixed number of rows and a cache of fixed size.

    Every step has the same shapes, so the whole forward is one compiled graph: embedding, passes, swap, fuse
    and head, without Python in between. It is compiled once per process for a number of rows, a window and a
    type. Attention reads the whole window under a mask, which costs little beside the weights.

    Args:
        model: in evaluation mode.
        cache: holds the rows' earlier tokens; the step writes into it and counts.

    Raises:
        BackendError: on a CPU without g++, which torch.compile calls.
    """

    def __init__(self, model: Decoder, cache: KVCache) -> None:
        if cache.keys.device.type == "cpu" and shutil.which("g++") is None:
            raise BackendError(
                "a compiled decoding step needs the C++ compiler g++, which is not found here; install it "
                "(Debian, Ubuntu: apt install g++), or generate without --compile"
            )
        self._model = model
        self._cache = cache

    def __call__(self, tokens: Tensor, rows: Sequence[int]) -> Tensor:
        """(n, V) logits after one token more in n of the cache's rows.

        Args:
            tokens: (n,) token ids.
            rows: n row numbers. All other rows are computed as well and then ignored: their new token goes
                where it does no harm, and they do not grow.
        """
        cache, device = self._cache, tokens.device
        index = torch.tensor(rows, device=device)
        newest = torch.zeros(len(cache.lengths), dtype=torch.long, device=device)
        newest[index] = tokens
        positions = torch.zeros_like(newest)
        positions[index] = torch.tensor([cache.lengths[row] for row in rows], device=device)
        keys, values = cache.keys.unbind(), cache.values.unbind()
        logits = _compiled_step()(self._model, newest, positions, keys, values, cache.grid)
        cache.advance(rows)
        return logits[index]


@cache
def _compiled_step() -> _Step:
    compiled: _Step = torch.compile(_step, dynamic=False, fullgraph=True)
    return compiled


def _step(
    model: Decoder,
    tokens: Tensor,
    positions: Tensor,
    keys: _Storage,
    values: _Storage,
    grid: tuple[int, int, int],
) -> Tensor:
    """(B, V) logits after the tokens (B,) at their positions (B,); keys and values are written in place."""
    view = StaticCacheView(keys, values, positions, grid)
    logits: Tensor = model(tokens[:, None], cache=view, last=torch.zeros_like(tokens))
    return logits
