from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evaluation.attention_bench.inputs import Inputs
from evaluation.attention_bench.shapes import Shape

Attend = Callable[[Inputs], Tensor]
"""To the output (B, H, T, D)."""
Step = Callable[[], list[Tensor]]
"""One call: the output and, in training, the gradients of the family's operands."""


@dataclass(frozen=True)
class Family:
    """A kind of attention: what is read, and how many products of T x S x D it takes when scores are kept."""

    name: str
    operands: str
    """Letters of `Inputs`."""
    forward_products: int
    backward_products: int


PLLA = Family("plla", "qrkv", 3, 8)
"""Forward q.k, r.k and W V; backward these scores, g.v and the five gradients of them (`docs/PLLA.md`)."""
SOFTMAX = Family("softmax", "qkv", 2, 5)


@dataclass(frozen=True)
class Task:
    """What is timed: `decode`, one new query a row of the batch, or `train`, forward and backward."""

    name: str
    gradients: bool
    shapes: tuple[Shape, ...]
    """Those of the public repository's page, or of this project's; taken where none is asked for."""

    def queries(self, shape: Shape) -> int:
        """T."""
        return shape.length if self.gradients else 1

    def step(self, attend: Attend, inputs: Inputs, family: Family) -> Step:
        """A call that can be repeated; nothing is kept between calls."""
        if not self.gradients:
            return lambda: [attend(inputs)]
        leaves = {name: getattr(inputs, name).detach().requires_grad_() for name in family.operands}
        asked = replace(inputs, **leaves)

        def forward_and_backward() -> list[Tensor]:
            output = attend(asked)
            return [output.detach(), *torch.autograd.grad(output, list(leaves.values()), inputs.grad)]

        return forward_and_backward


DECODE = Task("decode", False, tuple(Shape(1, 8, 8, length, 128) for length in (512, 1024, 4096, 16384)))
TRAIN = Task("train", True, (Shape(4, 8, 8, 512, 64), Shape(1, 8, 8, 2048, 128)))
