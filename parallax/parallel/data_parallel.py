from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from parallax.model.block import Block
from parallax.model.decoder import Decoder
from parallax.parallel.mesh import Mesh
from parallax.parallel.reduced_once import ReducedOnce

Forward = Callable[..., Any]


class DataParallel:
    """The data-parallel axes of a model: DDP where only copies are asked for, FSDP2 where weights are sharded.

    Gradients come out as the mean over all data-parallel ranks. Weight-tied passes stay exact: a block's
    weights are gathered once for all passes and both directions where `reshard_after_forward` allows, and its
    gradient is reduced once.

    Args:
        model: on the meta device.
        mesh: None: one process.
        reshard_after_forward: free a block's gathered weights after each pass, which saves memory and gathers
            them again for every pass and for the backward.
    """

    def __init__(self, model: Decoder, mesh: Mesh | None, *, reshard_after_forward: bool) -> None:
        self.forward: Forward = model
        self._model = model
        self._mesh = mesh
        self.reshards_after_forward = reshard_after_forward
        self._ddp: DistributedDataParallel | None = None
        self._reductions: list[ReducedOnce] = []

    def shard(self) -> None:
        """Before the model has memory: FSDP2 over every block, and over what is left as one more group."""
        if self._mesh is None or self._mesh.fsdp_mesh is None:
            return
        # Autocast chooses the products' type, and gradients are reduced in that of the weights, fp32.
        options: dict[str, Any] = {
            "mesh": self._mesh.fsdp_mesh,
            "reshard_after_forward": self.reshards_after_forward,
            "mp_policy": MixedPrecisionPolicy(cast_forward_inputs=False),
        }
        for module in self._model.modules():
            if isinstance(module, Block):
                self._reductions.append(ReducedOnce(fully_shard(module, **options)))
        fully_shard(self._model, **options)
        if not self.reshards_after_forward:
            for sharded in self._sharded():
                sharded.set_reshard_after_backward(False, recurse=False)

    def replicate(self) -> None:
        """Once the model has its weights: DDP over the data-parallel ranks, if nothing is sharded."""
        if self._mesh is None or self._mesh.layout.dp == 1 or self._mesh.fsdp_mesh is not None:
            return
        rehearsed = dist.get_backend(self._mesh.dp) == dist.Backend.FAKE
        self._ddp = DistributedDataParallel(self._model, process_group=self._mesh.dp, init_sync=not rehearsed)
        if rehearsed:
            # Work of the fake backend carries no result, which DDP's own reduction would read.
            self._ddp.register_comm_hook(self._mesh.dp, _reduce_in_place)
        self.forward = self._ddp

    @contextmanager
    def reducing(self, wanted: bool) -> Iterator[None]:
        """Gradients of a backward inside are reduced over the ranks, or kept for a later one of the same step."""
        if self._reductions:
            cast(FSDPModule, self._model).set_requires_gradient_sync(wanted, recurse=False)
        for reduction in self._reductions:
            reduction.begin(wanted)
        if self._ddp is not None and not wanted:
            with self._ddp.no_sync():
                yield
        else:
            yield

    def finish(self) -> None:
        """After a step's last backward, or a forward alone: `parameters()` are this rank's shards again."""
        for module in self._sharded():
            module.reshard()

    def _sharded(self) -> list[FSDPModule]:
        return [cast(FSDPModule, m) for m in self._model.modules() if isinstance(m, FSDPModule)]


def sum_over_ranks(values: torch.Tensor, mesh: Mesh | None) -> torch.Tensor:
    """The sum of what the data-parallel ranks measured, each on its own samples."""
    if mesh is not None and mesh.layout.dp > 1:
        dist.all_reduce(values, group=mesh.dp)
    return values


def count_over_ranks(number: int, mesh: Mesh | None) -> Callable[[], int]:
    """Begins to add up what the data-parallel ranks counted; the call of what it returns waits for the sum.

    The numbers stay on the host and travel while the device computes, which nothing here waits for.
    """
    if mesh is None or mesh.layout.dp == 1:
        return lambda: number
    total = torch.tensor(number)
    work = dist.all_reduce(total, group=mesh.dp, async_op=True)

    def finish() -> int:
        work.wait()
        return int(total)

    return finish


def _reduce_in_place(
    group: dist.ProcessGroup,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    buffer = bucket.buffer().div_(group.size())
    dist.all_reduce(buffer, group=group)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(buffer)
    return done
