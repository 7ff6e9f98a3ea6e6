"""What Triton makes of PLLA's kernels for GPUs that are not there.

    python -m evaluation.plla_kernels [--capability 80 86 90] [--kernel NAME …] [--quick] [--json]

Compiles every configuration that the package launches, as Triton would before a launch, and prints registers a
thread, bytes that they spill, shared memory a program and matrix instructions. The exit code is 1 if one spills
more than 64 bytes, needs more shared memory than the GPU has, or, in half precision, leaves the tensor cores idle.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from evaluation.plla_kernels.figures import Figures, measure
from evaluation.plla_kernels.shipped import CAPABILITIES, shipped

_HEADER = (
    *("GPU", "kernel", "problem", "tile; warps, stages"),
    *("registers", "spilled", "shared KiB", "matrix", "seconds"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The table on stdout; 1 if a configuration breaks a bound."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.plla_kernels", description="Kernels without a GPU."
    )
    parser.add_argument("--capability", nargs="+", type=int, choices=CAPABILITIES, default=CAPABILITIES)
    parser.add_argument("--kernel", nargs="+", help="only these; default: all")
    parser.add_argument("--quick", action="store_true", help="one configuration of each kernel")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    given = parser.parse_args(arguments)
    if not given.json:
        print(f"| {' | '.join(_HEADER)} |\n{'|---' * len(_HEADER)}|")
    broken = False
    for capability in given.capability:
        for configuration in shipped(capability):
            wanted = not given.kernel or configuration.kernel in given.kernel
            if wanted and (configuration.quick or not given.quick):
                start = time.perf_counter()
                figures = measure(configuration, capability)
                _show(figures, time.perf_counter() - start, given.json)
                broken = broken or bool(figures.broken)
    return int(broken)


def _show(figures: Figures, seconds: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(figures) | {"broken": figures.broken}), flush=True)
        return
    cells = (
        f"sm_{figures.capability}",
        figures.kernel,
        figures.problem,
        figures.tile,
        str(figures.registers),
        str(figures.spill_bytes),
        f"{figures.shared_bytes / 1024:.0f}",
        str(figures.matrix_instructions),
        f"{seconds:.0f}",
    )
    print(f"| {' | '.join(cells)} |{' ' + figures.broken if figures.broken else ''}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
