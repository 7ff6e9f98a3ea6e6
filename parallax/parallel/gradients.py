from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The parts of sharded tensors that are here; whole ones as they are."""
    detached = [tensor.detach() for tensor in tensors]
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in detached]


def global_norm(tensors: Sequence[Tensor], copies: Sequence[int], group: dist.ProcessGroup | None) -> Tensor:
    """Sqrt of the sum of squares over all ranks of a model, every element counted once.

    Args:
        tensors: the parts held here.
        copies: of each, how many ranks of the group hold the same values.
        group: the ranks that hold one model between them; None: everything is here.

    Returns:
        0-dim, fp64 on a CPU and fp32 elsewhere.
    """
    device = tensors[0].device if tensors else torch.device("cpu")
    wide = torch.float64 if device.type == "cpu" else torch.float32
    norms = torch.stack(torch._foreach_norm(list(tensors))).to(wide) if tensors else torch.zeros(0, dtype=wide)
    shares = torch.tensor(copies, dtype=wide, device=device)
    total = (norms.square() / shares).sum()
    if group is not None:
        dist.all_reduce(total, group=group)
    return total.sqrt()


def clip_to(tensors: Sequence[Tensor], norm: Tensor, largest: float) -> None:
    """Multiplies the tensors by min(1, largest / norm), in place and without waiting for the device."""
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(tensors), factor.to(tensors[0].dtype)) if tensors else None
