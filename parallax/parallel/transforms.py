from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from parallax.model.block import Block
from parallax.model.cache import LayerCache
from parallax.model.context import BlockContext

Forward = Callable[..., Tensor]


def apply_transforms(model: nn.Module, *, activation_checkpointing: bool, compile_blocks: bool) -> None:
    """Applies to every decoder block, in place and in the one right order, what the run asks for.

    1. Activation checkpointing: the block's forward keeps only its input and is run again in the backward,
       once per pass; dropout masks repeat because they depend on their keys only.
    2. torch.compile of the block, with the recomputation inside the graph. All blocks share one compiled
       code, since they differ in weights only.

    Decoding with a cache uses the plain block: nothing is to be recomputed, and its shapes change with every
    token, each of which would be compiled anew. Parameter names stay as they are.
    """
    for block in model.modules():
        if not isinstance(block, Block):
            continue
        plain: Forward = block.forward
        forward = plain
        if activation_checkpointing:
            forward = partial(_recompute, forward)
        if compile_blocks:
            forward = torch.compile(forward, dynamic=False)
        if forward is not plain:
            block.forward = partial(_choose, forward, plain)  # type: ignore[method-assign]


def _recompute(forward: Forward, hidden: Tensor, context: BlockContext) -> Tensor:
    """`checkpoint` as a function of our own: torch.compile leaves out the library's where it is outermost."""
    output: Tensor = checkpoint(forward, hidden, context, use_reentrant=False, preserve_rng_state=False)
    return output


def _choose(
    transformed: Forward, plain: Forward, hidden: Tensor, context: BlockContext, slot: LayerCache | None = None
) -> Tensor:
    return transformed(hidden, context) if slot is None else plain(hidden, context, slot)
