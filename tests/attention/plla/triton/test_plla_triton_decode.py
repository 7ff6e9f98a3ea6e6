"""The decoding kernel in Triton's interpreter against the reference in float64, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from decoding_cases import CASES

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("interpreted_decoding.py")
LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_last_row_of_the_reference(errors: dict[str, float], name: str) -> None:
    assert errors[name] <= LIMITS[CASES[name].dtype]


def test_a_row_without_keys_gives_zero(errors: dict[str, float]) -> None:
    assert errors["no keys"] == 0.0


def test_what_is_not_a_number_is_not_hidden(errors: dict[str, float]) -> None:
    assert errors["not a number"] == 0.0
