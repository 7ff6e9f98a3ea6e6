"""The training kernels in Triton's interpreter against the reference in float64, in a process of its own.

Whether they are for the interpreter or for a GPU is settled when their module is loaded, so not in the tests' own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from kernel_cases import CASES, LIMITS

SCRIPT = Path(__file__).with_name("interpreted_kernels.py")
QUICK = [name for name, case in CASES.items() if case.quick]
REST = [name for name in CASES if name not in QUICK]


def errors(*names: str, timeout: float) -> dict[str, dict[str, float]]:
    """By case, then by tensor."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, str(SCRIPT), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


def check(found: dict[str, dict[str, float]], names: list[str]) -> None:
    assert list(found) == names
    beyond = {
        f"{name}, {tensor}": error
        for name, of_case in found.items()
        for tensor, error in of_case.items()
        if not error <= LIMITS[CASES[name].dtype]
    }
    assert not beyond


@pytest.mark.timeout(280)
def test_output_and_every_gradient_are_the_references() -> None:
    check(errors(*QUICK, timeout=270), QUICK)


@pytest.mark.slow
@pytest.mark.timeout(620)
def test_output_and_every_gradient_are_the_references_in_all_cases() -> None:
    check(errors(*REST, timeout=600), REST)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_operators_are_what_they_say_to_compilers() -> None:
    assert errors("operators", timeout=270) == {"operators": {}}
