"""Triton's just-in-time compiler without a device: what it would compile for a launch, for a GPU that is named."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction


@dataclass(frozen=True)
class Binary:
    """What came of one launch."""

    kernel: str
    cubin: bytes
    registers: int
    """A thread."""
    spill_bytes: int
    """Stored by a thread, for want of registers."""
    shared_bytes: int
    """A program."""


def compile_launches(launch: Callable[[], object], capability: int) -> list[Binary]:
    """Calls a function that launches kernels on CPU tensors; compiles each launch for sm_<capability>, runs none.

    Types, alignments and constants are taken from the arguments by Triton itself, as before a real launch. Nothing
    comes from its cache, so that the assembler reports of each.

    Raises:
        RuntimeError: kernels that run in Triton's interpreter cannot be compiled in this process.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: kernels were made for the interpreter and cannot be compiled")
    binaries: list[Binary] = []
    original = JITFunction.run

    def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel.device_caches.clear()
        log = io.StringIO()
        with redirect_stdout(log):
            compiled = original(kernel, *arguments, grid=grid, warmup=True, **options)
        binaries.append(_binary(kernel.__name__, compiled, log.getvalue()))
        return compiled

    with _named_device(capability):
        JITFunction.run = compile_only
        try:
            launch()
        finally:
            JITFunction.run = original
    return binaries


def _binary(kernel: str, compiled: Any, log: str) -> Binary:
    registers, spilled = re.search(r"Used (\d+) registers", log), re.search(r"(\d+) bytes spill stores", log)
    if registers is None or spilled is None:
        raise RuntimeError(f"the assembler's report of {kernel} was not understood: {log}")
    return Binary(kernel, compiled.asm["cubin"], int(registers[1]), int(spilled[1]), compiled.metadata.shared)


@contextmanager
def _named_device(capability: int) -> Iterator[None]:
    with triton.knobs.compilation.scope(), triton.knobs.nvidia.scope():
        triton.knobs.compilation.always_compile = True
        triton.knobs.nvidia.dump_ptxas_log = True
        before = driver._active
        driver.set_active(_NamedDevice(capability))
        try:
            yield
        finally:
            driver._active = before


class _NamedDevice(DriverBase):  # type: ignore[misc]
    """What the compiler asks of a driver: for what to compile. The capability is the device's number as well."""

    def __init__(self, capability: int) -> None:
        super().__init__()
        self._capability = capability

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError

    def get_active_torch_device(self) -> Any:
        raise NotImplementedError

    def get_benchmarker(self) -> Any:
        raise NotImplementedError
