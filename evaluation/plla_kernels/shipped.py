from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from parallax.attention.plla.triton.decode_operator import launch_decode
from parallax.attention.plla.triton.decode_tiles import DecodeTile, decode_tile

SHARED_BYTES = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
"""Compute capability -> shared memory that one program may have."""


@dataclass(frozen=True)
class Shipped:
    """A configuration that the package launches on some GPU."""

    kernel: str
    what: str
    """Width of a head, type and shape of the problem."""
    tile: str
    launch: Callable[[], object]
    """Launches it on CPU tensors, for a compiler that takes the launch instead of a device."""
    quick: bool = False
    """The one of its kernel that every check of the code compiles."""


def shipped(capability: int) -> Iterator[Shipped]:
    """All configurations that the package may launch on a GPU of a capability."""
    yield from _decoding(capability)


def _decoding(capability: int) -> Iterator[Shipped]:
    for width, group, splits, dtype in (
        (64, 8, 16, torch.bfloat16),
        (64, 8, 1, torch.bfloat16),
        (64, 16, 16, torch.bfloat16),
        (64, 32, 16, torch.bfloat16),
        (128, 4, 16, torch.bfloat16),
        (128, 4, 1, torch.bfloat16),
        (128, 4, 16, torch.float16),
        (128, 16, 16, torch.bfloat16),
        (128, 32, 16, torch.bfloat16),
        (256, 4, 16, torch.bfloat16),
        (256, 16, 16, torch.bfloat16),
        (64, 8, 16, torch.float32),
        (128, 4, 16, torch.float32),
        (128, 32, 16, torch.float32),
        (256, 16, 16, torch.float32),
    ):
        tile = decode_tile(group, width, divmod(capability, 10), dtype.itemsize)
        what = f"D={width} {short(dtype)}, {group} heads a key head, {'split' if splits > 1 else 'one program'}"
        text = f"{2 * tile.block_heads}x{tile.block_keys}; {tile.num_warps}, {tile.num_stages}"
        yield Shipped(
            "decode",
            what,
            text,
            partial(_decode, width, group, dtype, tile, splits),
            quick=(width, group, splits, dtype) == (128, 4, 16, torch.bfloat16),
        )


def _decode(width: int, group: int, dtype: torch.dtype, tile: DecodeTile, splits: int) -> None:
    q = torch.empty(2, 1, 2 * group, width, dtype=dtype)
    k = torch.empty(2, 2, 1000, width, dtype=dtype).transpose(1, 2)
    launch_decode(q, q, k, k, width**-0.5, torch.empty(2, dtype=torch.int32), tile, splits)


def short(dtype: torch.dtype) -> str:
    """As configurations name it."""
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
