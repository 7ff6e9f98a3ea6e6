"""Tiles of the kernels, chosen by compiling for GPUs that were not there: registers, spills and shared memory.

Two sums per query make tiles of 128 rows spill at 4 warps, and at any number of them where a head is 128 wide.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """What a program of a kernel holds at a time."""

    block_queries: int
    block_keys: int
    num_warps: int
    num_stages: int
    """Tiles of what the kernel goes over that are on their way, and the one in use."""


KERNELS = ("forward", "backward_queries", "backward_keys")

_KIB = 1024
_SHARED_KIB = {(8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
_LEAST_SHARED_KIB = 99

# By kernel and padded width of a head, best first, with the KiB of shared memory that the compiler took at most on
# 8.0, 8.6 and 9.0 (`python -m evaluation.plla_kernels`). fp16 and bf16.
# With a mask, the keys' backward of 32 and 64 runs out of registers at 64 keys a tile on 8.0 and 8.6.
_HALF = {
    ("forward", 32): ((Tile(128, 64, 8, 2), 32),),
    ("forward", 64): ((Tile(128, 64, 8, 2), 64),),
    ("forward", 128): ((Tile(64, 32, 8, 3), 80),),
    ("forward", 256): ((Tile(32, 32, 8, 2), 66),),
    ("backward_queries", 32): ((Tile(64, 64, 4, 2), 28),),
    ("backward_queries", 64): ((Tile(64, 32, 4, 2), 40),),
    ("backward_queries", 128): ((Tile(64, 64, 8, 2), 112), (Tile(64, 32, 8, 2), 80)),
    ("backward_queries", 256): ((Tile(32, 32, 8, 2), 85),),
    ("backward_keys", 32): ((Tile(32, 32, 4, 2), 11),),
    ("backward_keys", 64): ((Tile(64, 32, 8, 2), 37),),
    ("backward_keys", 128): ((Tile(32, 64, 8, 2), 85),),
    ("backward_keys", 256): ((Tile(16, 32, 8, 2), 58),),
}
# fp32, of every kernel: no tensor cores, and twice the memory. Heads of 256 spill half a kilobyte with any tile.
_SINGLE = {32: Tile(32, 32, 4, 1), 64: Tile(32, 32, 8, 1), 128: Tile(32, 16, 8, 1)}


def widest_head(element_bytes: int) -> int:
    """How wide heads may be of a type of so many bytes."""
    return max(_SINGLE) if element_bytes == 4 else max(width for _, width in _HALF)


def padded_width(width: int) -> int:
    """The next power of two, as Triton's tiles are, and 16 at least, as matrix products want."""
    return max(16, 1 << (width - 1).bit_length())


def shared_memory_bytes(capability: tuple[int, int]) -> int:
    """What a program may have on a GPU of a compute capability; of one not listed, the least of those listed."""
    return _SHARED_KIB.get(capability, _LEAST_SHARED_KIB) * _KIB


def tiles_for(kernel: str, width: int, capability: tuple[int, int], element_bytes: int = 2) -> tuple[Tile, ...]:
    """Tiles of a kernel that fit a GPU, best first; the first is the one launched.

    Args:
        kernel: one of `KERNELS`.
        width: of a head, at most 256; 128 in fp32.
        capability: compute capability, 8.0 or later: before it, Triton makes no use of tensor cores.
        element_bytes: of the type of the inputs; 4 for fp32.

    Raises:
        ValueError: heads that are too wide, or a capability below 8.0.
    """
    if width > (widest := widest_head(element_bytes)):
        kind = " of fp32" if element_bytes == 4 else ""
        raise ValueError(f"width={width}: the kernels take heads of {widest} numbers{kind} at most")
    if capability < (8, 0):
        raise ValueError(f"capability {capability[0]}.{capability[1]}: the kernels need 8.0 or later")
    row = max(32, padded_width(width))
    if element_bytes == 4:
        return (_SINGLE[row],)
    limit = shared_memory_bytes(capability)
    return tuple(tile for tile, shared_kib in _HALF[kernel, row] if shared_kib * _KIB <= limit)
