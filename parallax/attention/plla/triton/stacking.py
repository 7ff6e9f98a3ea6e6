"""Two tiles of rows as one, so that one matrix product serves both: the queries' above, the directions' below."""

import triton
import triton.language as tl


@triton.jit
def stack(top, bottom):
    """Two (N, X) tiles -> (2 N, X)."""
    joined = tl.permute(tl.join(top, bottom), (2, 0, 1))
    return tl.reshape(joined, (2 * top.shape[0], top.shape[1]))


@triton.jit
def unstack(rows):
    """(2 N, X) -> its upper and lower half, (N, X) each."""
    halves = tl.reshape(rows, (2, rows.shape[0] // 2, rows.shape[1]))
    return tl.split(tl.permute(halves, (1, 2, 0)))
