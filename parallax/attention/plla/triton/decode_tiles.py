from dataclasses import dataclass


@dataclass(frozen=True)
class DecodeTile:
    """How a program of the decoding kernel goes over its keys."""

    keys: int
    warps: int
    stages: int
    """Tiles of keys and values in flight, and the one in use."""


_SLACK_BYTES = 10 * 1024
_HEADS = (8, 16, 32)
MOST_SPLITS = 64
"""One program merges a row: past this, what it reads takes longer than what more programs would save."""


def decode_tile(block_width: int, element_bytes: int, shared_bytes: int) -> DecodeTile:
    """The tile for heads of a width and a device with some shared memory: 64 keys and three tiles in flight, if they fit.

    Decoding waits for memory, so what counts is how much of it is asked for at a time.
    """
    for keys, stages in ((64, 4), (64, 3), (32, 4), (32, 3), (32, 2), (16, 2)):
        if (stages - 1) * 2 * keys * block_width * element_bytes + _SLACK_BYTES <= shared_bytes:
            return DecodeTile(keys, 4, stages)
    raise ValueError(f"heads of {block_width} numbers of {element_bytes} bytes do not fit {shared_bytes} bytes")


def block_heads(group: int) -> int:
    """Query heads in a tile: all of a key head, up to 32; queries and directions make 16 rows, the least, or more."""
    return next((heads for heads in _HEADS if heads >= group), _HEADS[-1])


def padded_width(width: int) -> int:
    """The next power of two, as Triton's tiles are, and 16 at least, as matrix products want."""
    return max(16, 1 << (width - 1).bit_length())


def num_splits(programs: int, tiles: int, multiprocessors: int) -> int:
    """Programs that share a row's keys, so that all multiprocessors have work and each program has a tile."""
    return max(1, min(-(-multiprocessors // programs), tiles, MOST_SPLITS))
