import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """x W^T, and + b where asked for."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product x W^T + b: (..., in), (out, in) and (out) -> (..., out).

    A single row on a CPU under torch.compile is a product with a vector, for which the compiler writes a loop
    that reads the weights at the full rate of the memory; the library's product reaches two fifths of it
    (`docs/EXPERIMENTS.md`).
    """
    if torch.compiler.is_compiling() and x.numel() == x.shape[-1] and x.device.type == "cpu":
        product = torch.mv(weight, x.reshape(-1)).view(*x.shape[:-1], -1)
        return product if bias is None else product + bias.to(product.dtype)
    return F.linear(x, weight, bias)
