from dataclasses import dataclass

from parallax.attention.plla.triton.tiles import padded_width, shared_memory_bytes

_KEYS_AND_STAGES = {2: ((64, 4), (64, 3), (32, 4), (32, 3)), 4: ((32, 3), (16, 3), (16, 2))}
"""Bytes of a number -> tiles, most bytes on their way first. fp32 is multiplied in registers: fewer keys."""

_SLACK_BYTES = 12 * 1024
_MOST_SUMS = 4096
_MOST_SPLITS = 64


@dataclass(frozen=True)
class DecodeTile:
    """What a program of the decoding kernel holds at a time."""

    block_heads: int
    """Query heads of a key head; queries and directions make twice as many rows of a matrix product."""
    block_keys: int
    num_warps: int
    num_stages: int
    """Tiles of keys and values on their way, and the one in use."""


def decode_tile(group: int, width: int, capability: tuple[int, int], element_bytes: int = 2) -> DecodeTile:
    """The tile with most keys on their way that fits the shared memory of a program.

    Keys are read once for all heads of a tile: up to 32 of a key head, or 16 of a width of 256, since more would
    spill. Chosen by compiling (`python -m evaluation.plla_kernels`), not by timing.

    Args:
        group: query heads of a key head.
        width: of a head, at most 256.
        capability: compute capability.
        element_bytes: of a number, 2 or 4.

    Raises:
        ValueError: heads wider than 256, or a capability below 8.0.
    """
    if width > 256:
        raise ValueError(f"width={width}: the kernels take heads of 256 numbers at most")
    if capability < (8, 0):
        raise ValueError(f"capability {capability[0]}.{capability[1]}: the kernels need 8.0 or later")
    block_width, limit = padded_width(width), shared_memory_bytes(capability)
    heads = min(next((n for n in (8, 16) if n >= group), 32), max(8, _MOST_SUMS // block_width))
    num_warps = 8 if element_bytes == 4 or heads * block_width >= _MOST_SUMS else 4
    # Rows of queries and directions, and their weights between two products, beside keys and values.
    rows = 2 * heads * (block_width + 64) * element_bytes + _SLACK_BYTES
    return next(
        DecodeTile(heads, keys, num_warps, stages)
        for keys, stages in _KEYS_AND_STAGES[element_bytes]
        if (stages - 1) * 2 * keys * block_width * element_bytes + rows <= limit
    )


def num_splits(programs: int, tiles: int, multiprocessors: int) -> int:
    """Programs that share a row's keys: all multiprocessors have work, each program has a tile.

    One program merges a row's sums, so past a number its reading takes longer than more programs would save.
    """
    return max(1, min(-(-multiprocessors // programs), tiles, _MOST_SPLITS))
