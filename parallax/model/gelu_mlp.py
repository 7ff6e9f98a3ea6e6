import torch.nn.functional as F
from torch import Tensor, nn

from parallax.model.linear import Linear


class GeluMlp(nn.Module):
    """W2 gelu(W1 h + b1) + b2, with GELU's tanh form, as GPT-2 has it.

    Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.up = Linear(hidden_size, intermediate_size, bias=True)
        self.down = Linear(intermediate_size, hidden_size, bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.down(F.gelu(self.up(hidden), approximate="tanh"))
