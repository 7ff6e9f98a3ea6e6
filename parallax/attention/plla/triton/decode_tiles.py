from dataclasses import dataclass

_KEYS_AND_STAGES = {2: ((64, 4), (64, 3), (32, 4), (32, 3), (32, 2)), 4: ((32, 3), (16, 3), (16, 2))}
"""Bytes of a number -> tiles, the most bytes on their way first. Products of fp32 are registers' work: fewer keys."""

_SLACK_BYTES = 12 * 1024
_MOST_SUMS = 4096
_MOST_SPLITS = 64


@dataclass(frozen=True)
class DecodeTile:
    """What a program of the decoding kernel holds at a time."""

    heads: int
    """Query heads of a key head; their queries and directions make twice as many rows of a matrix product."""
    keys: int
    warps: int
    stages: int
    """Tiles of keys and values on their way, and the one in use."""


def decode_tile(group: int, block_width: int, element_bytes: int, shared_bytes: int) -> DecodeTile:
    """The tile for `group` query heads a key head: most keys on their way that fit the shared memory of a program.

    All heads of a group are in one tile, so that keys are read once, up to 32, and 16 of a width of 256: more would
    spill. The lists were made by compiling (`python -m evaluation.plla_kernels`), not by timing.

    Raises:
        ValueError: heads too wide for the device.
    """
    heads = min(next((n for n in (8, 16) if n >= group), 32), max(8, _MOST_SUMS // block_width))
    warps = 8 if element_bytes == 4 or heads * block_width >= _MOST_SUMS else 4
    # Rows of queries and directions, and their weights between two products, beside keys and values.
    rows = 2 * heads * (block_width + 64) * element_bytes + _SLACK_BYTES
    for keys, stages in _KEYS_AND_STAGES[element_bytes]:
        if (stages - 1) * 2 * keys * block_width * element_bytes + rows <= shared_bytes:
            return DecodeTile(heads, keys, warps, stages)
    raise ValueError(f"heads of {block_width} numbers of {element_bytes} bytes do not fit {shared_bytes} bytes")


def padded_width(width: int) -> int:
    """The next power of two, as Triton's tiles are, and 16 at least, as matrix products want."""
    return max(16, 1 << (width - 1).bit_length())


def num_splits(programs: int, tiles: int, multiprocessors: int) -> int:
    """Programs that share a row's keys: all multiprocessors have work, each program has a tile.

    One program merges a row's sums, so past a number its reading takes longer than more programs would save.
    """
    return max(1, min(-(-multiprocessors // programs), tiles, _MOST_SPLITS))
