from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from parallax.attention.plla.triton.backward_keys import launch_backward_keys
from parallax.attention.plla.triton.backward_queries import launch_backward_queries
from parallax.attention.plla.triton.decode_operator import launch_decode
from parallax.attention.plla.triton.decode_tiles import DecodeTile, decode_tile
from parallax.attention.plla.triton.forward import launch_forward
from parallax.attention.plla.triton.tiles import KERNELS, Tile, shared_memory_bytes, tiles_for, widest_head

CAPABILITIES = (80, 86, 90)
WIDTHS = (32, 64, 128, 256)
_LENGTH = 1024


@dataclass(frozen=True)
class Shipped:
    """A configuration that the package launches on some GPU."""

    kernel: str
    problem: str
    tile: str
    launch: Callable[[], object]
    """Launches it on CPU tensors, for a compiler that takes the launch instead of a device."""
    tensor_cores: bool
    """Whether products are theirs; those of fp32 are not."""
    quick: bool
    """Whether it stands for its kernel where there is no time for all."""


def shipped(capability: int) -> Iterator[Shipped]:
    """All configurations that the package may launch on a GPU of a compute capability, such as 86."""
    for kernel in KERNELS:
        for width in WIDTHS:
            yield _training(kernel, width, torch.bfloat16, capability)
            yield _training(kernel, width, torch.bfloat16, capability, masked=True)
            if width <= widest_head(torch.float32.itemsize):
                yield _training(kernel, width, torch.float32, capability)
        yield _training(kernel, 64, torch.float16, capability)
    for width in WIDTHS:
        for group in (4, 16) if width == 256 else (4, 16, 32):
            yield _decoding(width, group, torch.bfloat16, capability)
        yield _decoding(width, 4, torch.float32, capability)
    yield _decoding(128, 4, torch.float16, capability)
    yield _decoding(128, 4, torch.bfloat16, capability, splits=1)


def _training(kernel: str, width: int, dtype: torch.dtype, capability: int, masked: bool = False) -> Shipped:
    tile = tiles_for(kernel, width, divmod(capability, 10), dtype.itemsize)[0]
    return Shipped(
        kernel,
        f"D={width} {_short(dtype)}" + (", a mask" if masked else ""),
        f"{tile.block_queries}x{tile.block_keys}; {tile.num_warps}, {tile.num_stages}",
        partial(_train, kernel, width, dtype, tile, masked),
        tensor_cores=dtype != torch.float32,
        quick=(width, dtype, masked) == (64, torch.bfloat16, False),
    )


def _train(kernel: str, width: int, dtype: torch.dtype, tile: Tile, masked: bool) -> None:
    q = torch.empty(2, _LENGTH, 4, width, dtype=dtype).transpose(1, 2)
    k = torch.empty(2, _LENGTH, 2, width, dtype=dtype).transpose(1, 2)
    rows = torch.empty(2, 4, _LENGTH)
    mask = torch.empty(2, 1, _LENGTH, _LENGTH, dtype=torch.bool) if masked else None
    arguments = (width**-0.5, None, tile, mask)
    if kernel == "forward":
        launch_forward(q, q, k, k, *arguments)
    elif kernel == "backward_queries":
        output = q.contiguous()
        launch_backward_queries(q, q, q, k, k, output, output, rows, rows, *arguments)
    else:
        launch_backward_keys(q, q, q, k, k, rows, rows, rows, rows, *arguments)


def _decoding(width: int, group: int, dtype: torch.dtype, capability: int, splits: int = 16) -> Shipped:
    tile = decode_tile(group, width, divmod(capability, 10), dtype.itemsize)
    return Shipped(
        "decode",
        f"D={width} {_short(dtype)}, {group} heads a key head" + ("" if splits > 1 else ", not split"),
        f"{2 * tile.block_heads}x{tile.block_keys}; {tile.num_warps}, {tile.num_stages}",
        partial(_decode, width, group, dtype, tile, splits),
        tensor_cores=dtype != torch.float32,
        quick=(width, group, dtype, splits) == (128, 4, torch.bfloat16, 16),
    )


def _decode(width: int, group: int, dtype: torch.dtype, tile: DecodeTile, splits: int) -> None:
    q = torch.empty(2, 1, 2 * group, width, dtype=dtype)
    k = torch.empty(2, 2, _LENGTH, width, dtype=dtype).transpose(1, 2)
    launch_decode(q, q, k, k, width**-0.5, torch.empty(2, dtype=torch.int32), tile, splits)


def shared_limit_bytes(capability: int) -> int:
    """What a program may have on a GPU of a compute capability, such as 86."""
    return shared_memory_bytes(divmod(capability, 10))


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
