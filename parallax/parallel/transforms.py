from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from parallax.model.block import Block


def apply_transforms(model: nn.Module, *, activation_checkpointing: bool, compile_blocks: bool) -> None:
    """Applies to every decoder block, in place and in the one right order, what the run asks for.

    1. Activation checkpointing: the block's forward keeps only its input and is run again in the backward,
       once per pass; the random state is put back, so dropout masks repeat.
    2. torch.compile of the block, with the recomputation inside the graph. All blocks share one compiled
       code, since they differ in weights only.

    Parameter names stay as they are.
    """
    for block in model.modules():
        if not isinstance(block, Block):
            continue
        if activation_checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
        if compile_blocks:
            block.compile(dynamic=False)
