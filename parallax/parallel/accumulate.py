from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from parallax.model.documents import document_ids
from parallax.model.head import IGNORE_INDEX, HeadOutput
from parallax.parallel.data_parallel import count_over_ranks, sum_over_ranks
from parallax.parallel.engine import LossSums
from parallax.parallel.mesh import Mesh
from parallax.runtime.phase import phase


class MicroBatch(NamedTuple):
    """One forward's inputs, on the device."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None
    noise: Tensor
    is_last: bool
    """Whether its backward ends in the reduction of the gradients."""
    factor: Callable[[], float]
    """By which to multiply the objective's sum before its backward; may wait for other ranks."""


def accumulate(
    micro_batches: Sequence[Tensor],
    noise: Sequence[Tensor],
    run: Callable[[MicroBatch], HeadOutput],
    *,
    device: torch.device,
    mesh: Mesh | None,
    eos_id: int | None,
) -> LossSums:
    """Runs forward and backward of every micro-batch of a step; the sums over all ranks.

    Data-parallel ranks average their gradients, and the sum of all over the valid tokens of the global batch is
    wanted: so a micro-batch's sum is multiplied by ranks / tokens, however many micro-batches there are.

    Args:
        micro_batches: windows (b, T + 1) of token ids, on the CPU; IGNORE_INDEX marks targets to skip.
        noise: (b,) row keys of each micro-batch, on the CPU.
        run: does forward and backward of one.
        device: where it does so.
        mesh: the ranks; None: one process.
        eos_id: the token that parts documents; None: a row is one document.
    """
    counted = count_over_ranks(sum(int((windows[:, 1:] != IGNORE_INDEX).sum()) for windows in micro_batches), mesh)
    num_ranks = mesh.layout.dp if mesh else 1
    wide = torch.float64 if device.type == "cpu" else torch.float32
    total = torch.zeros(4, dtype=wide, device=device)
    for number, (windows, keys) in enumerate(zip(micro_batches, noise, strict=True), start=1):
        windows, keys = _to_device(windows, device), _to_device(keys, device)
        output = run(
            MicroBatch(
                # A place whose target is skipped may still be an input, and the embedding has no row for the mark.
                tokens=windows[:, :-1].clamp(min=0),
                targets=windows[:, 1:],
                documents=None if eos_id is None else document_ids(windows[:, :-1], eos_id),
                noise=keys,
                is_last=number == len(micro_batches),
                factor=lambda: num_ranks / counted(),
            )
        )
        sums = (output.objective_sum, output.nll_sum, output.z_sum, output.correct_count)
        total += torch.stack([value.detach().to(total.dtype) for value in sums])
    with phase("reduce"):
        total = sum_over_ranks(total, mesh)
    return LossSums(total[0], total[1], total[2], total[3], counted())


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    # Only a copy from pinned memory lets the host go on.
    source = values.pin_memory() if device.type == "cuda" else values
    return source.to(device, non_blocking=True)
