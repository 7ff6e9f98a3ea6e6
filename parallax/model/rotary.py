import torch
from torch import Tensor


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
    return angles_of(positions, theta**-exponents, dtype)


def angles_of(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * frequency.

    Args:
        positions: (B or 1, T) integer positions.
        frequencies: (E/2,) for all heads, or (H, 1, E/2); the angles have their type.
        dtype: type of the result.

    Returns:
        Two tensors (B or 1, 1 or H, T, E/2).
    """
    angles = positions[:, None, :, None].to(frequencies.dtype) * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (x_i, x_{i+E/2}) of a head by its position's angle.

    Args:
        x: (B, H, T, E).
        cos: (B or 1, 1 or H, T, E/2).
        sin: (B or 1, 1 or H, T, E/2).

    Returns:
        (B, H, T, E), of x's type. The halves are split, not interleaved, as in Llama's published weights.
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)
