"""The backend over its real kernels, in Triton's interpreter, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a process that interprets kernels

SCRIPT = Path(__file__).with_name("interpreted_backend.py")
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=280, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", ["whole", "fewer queries", "one query", "documents apart"])
def test_a_model_gets_the_definition_and_its_gradients(errors: dict[str, list[float]], case: str) -> None:
    assert len(errors[case]) == (1 if case == "one query" else 4)
    assert max(errors[case]) < 5e-6


def test_the_trial_accepts_the_kernels(errors: dict[str, list[float]]) -> None:
    assert 0 < errors["trial"][0] < 5e-3, "fp16's rounding, far within what is allowed"
