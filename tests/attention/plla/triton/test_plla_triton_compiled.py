"""The Triton kernels compiled for GPUs that are not there: registers, shared memory, tensor cores."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[4]
SHARED_KIB = {80: 163, 86: 99, 90: 227}
ON_TURING = """
from evaluation.plla_kernels.figures import measure
from evaluation.plla_kernels.shipped import shipped

for configuration in shipped(86):
    if configuration.quick:
        print(configuration.kernel, measure(configuration, 75).matrix_instructions)
"""
KERNELS = {"forward", "backward_queries", "backward_keys", "decode"}


def printed(*arguments: str, timeout: float) -> list[str]:
    """The lines of a process in which kernels are not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    # 1: a bound is broken, which the lines say.
    assert done.returncode == 0 or (done.returncode == 1 and not done.stderr), done.stderr
    return done.stdout.splitlines()


def compiled(*arguments: str, timeout: float) -> list[dict[str, Any]]:
    """Figures of configurations."""
    return [
        json.loads(line)
        for line in printed("-m", "evaluation.plla_kernels", "--json", *arguments, timeout=timeout)
    ]


def check(figures: list[dict[str, Any]]) -> None:
    for row in figures:
        assert row["spill_bytes"] <= 64, row
        assert row["shared_bytes"] <= SHARED_KIB[row["capability"]] * 1024, row
        # fp32 is multiplied in registers, without tensor cores.
        assert row["matrix_instructions"] > 0 or "fp32" in row["problem"], row


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.slow), 86, pytest.param(90, marks=pytest.mark.slow)]
)
def test_one_configuration_of_each_kernel_fits_its_gpu(capability: int) -> None:
    figures = compiled("--quick", "--capability", str(capability), timeout=270)
    assert {row["kernel"] for row in figures} == KERNELS
    check(figures)


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.product), 86, pytest.param(90, marks=pytest.mark.product)]
)
def test_every_configuration_fits_its_gpu_and_uses_its_tensor_cores(capability: int) -> None:
    figures = compiled("--capability", str(capability), timeout=1200)
    assert {row["kernel"] for row in figures} == KERNELS
    assert len({(row["kernel"], row["problem"], row["tile"]) for row in figures}) == len(figures) > len(KERNELS)
    check(figures)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_triton_leaves_the_tensor_cores_of_capability_75_idle() -> None:
    """Why the kernels ask for 8.0: for what comes before, products are made of single multiplications."""
    assert set(printed("-c", ON_TURING, timeout=360)) == {f"{kernel} 0" for kernel in KERNELS}
