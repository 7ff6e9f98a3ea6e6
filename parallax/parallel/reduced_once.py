from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule


class ReducedOnce:
    """Has FSDP2 reduce the gradient of a block that runs several passes once a step, after the last of them.

    Going back through a pass, FSDP2 reduces whatever gradient the block has by then. Autograd adds up all passes
    first, so with one micro-batch that is none before the last; but what earlier micro-batches left would be
    reduced by itself, and all the bytes would travel twice.

    Args:
        block: sharded; no other forward hook may change its output.
    """

    def __init__(self, block: FSDPModule) -> None:
        self._block = block
        self._wanted = False
        self._open_passes = 0
        assert isinstance(block, nn.Module)
        block.register_forward_hook(self._after_pass)

    def begin(self, wanted: bool) -> None:
        """Before a micro-batch: whether its backward ends in the reduction."""
        self._wanted = wanted
        self._open_passes = 0
        self._block.set_requires_gradient_sync(False, recurse=False)

    def _after_pass(self, block: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad:
            self._open_passes += 1
            output.register_hook(self._before_backward)  # type: ignore[no-untyped-call]

    def _before_backward(self, gradient: Tensor) -> None:
        self._open_passes -= 1
        if self._open_passes == 0:
            self._block.set_requires_gradient_sync(self._wanted, recurse=False)
