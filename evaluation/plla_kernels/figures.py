from dataclasses import dataclass

from evaluation.plla_kernels.ahead_of_time import compile_launches
from evaluation.plla_kernels.instructions import instruction_counts, matrix_instructions
from evaluation.plla_kernels.shipped import Shipped, shared_limit_bytes

_MOST_SPILL_BYTES = 64


@dataclass(frozen=True)
class Figures:
    """Of a compiled kernel."""

    capability: int
    kernel: str
    problem: str
    tile: str
    registers: int
    """A thread."""
    spill_bytes: int
    """That a thread stores for want of registers."""
    shared_bytes: int
    """A program."""
    matrix_instructions: int
    """In the code, of the tensor cores."""
    tensor_cores: bool
    """Whether there should be any."""

    @property
    def broken(self) -> str:
        """What is wrong with it, or nothing."""
        if self.spill_bytes > _MOST_SPILL_BYTES:
            return f"spills {self.spill_bytes} bytes"
        if self.shared_bytes > shared_limit_bytes(self.capability):
            return f"needs {self.shared_bytes} bytes of shared memory"
        return "uses no tensor cores" if self.tensor_cores and not self.matrix_instructions else ""


def measure(configuration: Shipped, capability: int) -> Figures:
    """Compiles a configuration that launches one kernel."""
    (binary,) = compile_launches(configuration.launch, capability)
    return Figures(
        capability,
        configuration.kernel,
        configuration.problem,
        configuration.tile,
        binary.registers,
        binary.spill_bytes,
        binary.shared_bytes,
        matrix_instructions(instruction_counts(binary.cubin)),
        configuration.tensor_cores,
    )
