import torch
from torch import Tensor


def product_dtype(hidden: Tensor) -> torch.dtype:
    """Autocast's type where it is on, else the hidden state's; autocast leaves fp64 alone."""
    kind = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return hidden.dtype
