from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

_FLAGS = (torch.bool, torch.uint8)


@contextmanager
def joined_as(rank: int, world_size: int) -> Iterator[None]:
    """This process as one rank of a process group whose other ranks do not exist and whose work is never done."""
    dist.init_process_group(dist.Backend.FAKE, store=FakeStore(), rank=rank, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
        # DTensor keeps what it worked out, groups that are gone included, for any mesh that looks the same.
        _clear_sharding_prop_cache()


@contextmanager
def without_memory() -> Iterator[None]:
    """Tensors made inside have shapes and types, and no memory. A number read from one is 1, a flag is not set."""
    with FakeTensorMode(allow_non_fake_inputs=True), _AnyNumber():
        yield


class _AnyNumber(TorchDispatchMode):
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0 if args[0].dtype in _FLAGS else 1
        return func(*args, **(kwargs or {}))
