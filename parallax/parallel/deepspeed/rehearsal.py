import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from parallax.parallel.deepspeed.library import import_deepspeed

_PATCHED: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (torch, ("tensor", "empty", "zeros", "ones", "full", "arange", "eye", "randn")),
    (Tensor, ("__new__",)),
    (nn.functional, ("linear", "embedding")),
    (nn.Module, ("apply", "_apply", "__init_subclass__")),
)
"""What DeepSpeed replaces in PyTorch. Stage 3 leaves its own `linear`, which rounds otherwise in 16 bits."""
_GROUPS = ("_WORLD_GROUP", "_ZERO_PARAM_INTRA_PARALLEL_GROUP", "mpu", "mesh_device")
"""What it remembers of process groups that are gone with the rehearsal."""
_ENVIRONMENT = ("DS_ACCELERATOR", "LOCAL_RANK")
_COMPARES = "assert_ints_same_as_other_ranks"
_MISSING = object()


@contextmanager
def deepspeed_rehearsal() -> Iterator[None]:
    """DeepSpeed inside computes on the CPU, in any precision, and keeps quiet; afterwards all is as it was.

    All: what it replaced in PyTorch, which arithmetic later in the process would notice, its communication
    backend and groups, its accelerator, and the environment.

    Raises:
        BackendError: it is not installed, or cannot be imported.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment_kept())
        for owner, names in _PATCHED:
            stack.enter_context(_kept(owner, names))
        import_deepspeed(torch.device("cpu"))
        real: Any = import_module("deepspeed.accelerator.real_accelerator")
        stack.enter_context(_kept(real, ("ds_accelerator",)))
        real.ds_accelerator = _any_precision()
        comm, groups = import_module("deepspeed.comm.comm"), import_module("deepspeed.utils.groups")
        for module, names in ((comm, ("cdb",)), (groups, _GROUPS)):
            stack.enter_context(_kept(module, names))
            for name in names:
                setattr(module, name, None)
        stack.enter_context(_without_compiling())
        stack.enter_context(_without_comparing())
        nn.Module._apply = _convert  # type: ignore[method-assign]
        logger = logging.getLogger("DeepSpeed")
        stack.enter_context(_kept(logger, ("disabled",)))
        logger.disabled = True
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


def _convert(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`Module._apply` as it is for real tensors: fake ones it swaps, which fails where one is in use."""
    for part in module.modules() if recurse else [module]:
        for name, parameter in part._parameters.items():
            if isinstance(parameter, FakeTensor):
                parameter.data = function(parameter.data)
            elif parameter is not None:
                part._parameters[name] = nn.Parameter(function(parameter.data), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = function(buffer)
    return module


def _any_precision() -> Any:
    """Its accelerator for CPUs, which otherwise asks the processor whether it multiplies fp16."""
    accelerator = import_module("deepspeed.accelerator.cpu_accelerator").CPU_Accelerator()
    accelerator.is_fp16_supported = lambda: True
    return accelerator


class _Operators:
    """DeepSpeed's compiled Adam, whose work on tensors without memory is none."""

    def create_adam(self, *_: Any) -> None:
        pass

    def destroy_adam(self, *_: Any) -> None:
        pass

    def adam_update(self, *_: Any) -> None:
        pass


@contextmanager
def _without_compiling() -> Iterator[None]:
    """Compiled operators, which take minutes the first time, are not needed."""
    builder = import_module("deepspeed.ops.op_builder").CPUAdamBuilder
    engine: Any = import_module("parallax.parallel.deepspeed.engine")
    with _kept(builder, ("load",)), _kept(engine, ("load_operator",)):
        builder.load = lambda *_, **__: _Operators()
        engine.load_operator = lambda *_: None
        yield


@contextmanager
def _without_comparing() -> Iterator[None]:
    """Stage 3 compares numbers with those of ranks that do not exist."""
    with ExitStack() as stack:
        for name in ("partition_parameters", "partitioned_param_coordinator"):
            module: Any = import_module(f"deepspeed.runtime.zero.{name}")
            stack.enter_context(_kept(module, (_COMPARES,)))
            setattr(module, _COMPARES, lambda *_, **__: None)
        yield


@contextmanager
def _kept(owner: Any, names: tuple[str, ...]) -> Iterator[None]:
    before = {name: vars(owner).get(name, _MISSING) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is not _MISSING:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
