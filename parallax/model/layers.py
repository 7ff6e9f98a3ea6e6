import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALIGNMENT = 16


class SwiGLU(nn.Module):
    """W3(silu(W1 h) * (W2 h)), with W1 and W2 as the two halves of one matrix.

    Source: Shazeer, "GLU Variants Improve Transformer", 2020.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = GateUp(hidden_size, intermediate_size)
        self.down = Down(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GateUp(nn.Linear):
    """W1 h and W2 h of a SwiGLU side by side, each filled up with zeros to a width that products are fast at.

    A matrix product of a width like 1365 or 2730 runs at 0.6 times the rate of its aligned neighbour, on CPUs
    and on tensor cores alike (`docs/EXPERIMENTS.md`). The parameter keeps its own size; the zeros exist in
    the product only, and silu(0) * 0 = 0 meets a zero column in `Down`. Copying the weight costs about a
    fiftieth of what the product gains.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__(hidden_size, 2 * intermediate_size, bias=False)
        self.padding = _padding(intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, 2 J), J >= I the aligned width; columns I .. J - 1 of each half are 0."""
        if not self.padding or _is_single_token(hidden):
            return F.linear(hidden, self.weight)
        halves = self.weight.view(2, -1, self.in_features)
        return F.linear(hidden, F.pad(halves, (0, 0, 0, self.padding)).flatten(0, 1))


class Down(nn.Linear):
    """W3 of a SwiGLU, which reads I columns, or J of them as `GateUp` gives them."""

    def __init__(self, intermediate_size: int, hidden_size: int) -> None:
        super().__init__(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, I or J) -> (B, T, D)."""
        padding = hidden.shape[-1] - self.in_features
        # Padding by nothing would still copy.
        return F.linear(hidden, F.pad(self.weight, (0, padding)) if padding else self.weight)


def _padding(width: int) -> int:
    return -width % _ALIGNMENT


def _is_single_token(hidden: Tensor) -> bool:
    """Decoding one token a row moves every weight once: there a copy would cost more than the product."""
    return hidden.shape[-2] == 1


def rotary_angles(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * theta^(-2i/E), i = 0 .. E/2 - 1.

    They are computed from the positions in every forward instead of being kept: the cost is a thousandth of
    a block's, and a model built on the meta device has no buffers to restore.

    Args:
        positions: (B or 1, T) integer positions.
        head_dim: E.
        theta: base of the frequencies.
        dtype: type of the result; the angles themselves are fp64 for fp64 and fp32 otherwise.

    Returns:
        Two tensors (B or 1, 1, T, E/2). Source: Su et al., "RoFormer", 2021.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=wide) / head_dim
    angles = positions[:, None, :, None].to(wide) * theta**-exponents
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (x_i, x_{i+E/2}) of a head by its position's angle.

    Args:
        x: (B, H, T, E).
        cos: (B or 1, 1, T, E/2).
        sin: (B or 1, 1, T, E/2).

    Returns:
        (B, H, T, E), of x's type. The halves are split, not interleaved, as in Llama's published weights.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
