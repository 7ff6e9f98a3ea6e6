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

from parallax.attention.plla.triton.decode_operator import triton_decode

SCRIPT = Path(__file__).with_name("interpreted_decoding.py")
LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=280, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_last_row_of_the_reference(errors: dict[str, float], name: str) -> None:
    assert errors[name] <= LIMITS[CASES[name].dtype]


def test_a_row_without_keys_gives_zero(errors: dict[str, float]) -> None:
    assert errors["no keys"] == 0.0


def test_what_is_not_a_number_is_not_hidden(errors: dict[str, float]) -> None:
    assert errors["not a number"] == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": (2, 1, 8, 9)}, r"q is \(2, 1, 4, 8\) and r \(2, 1, 8, 9\)"),
        ({"q": (2, 2, 4, 8), "r": (2, 2, 4, 8)}, r"one shape, \(B, 1, H, D\)"),
        ({"v": (2, 5, 2, 9)}, r"k is \(2, 5, 2, 8\) and v \(2, 5, 2, 9\)"),
        ({"k": (3, 5, 2, 8), "v": (3, 5, 2, 8)}, "batch and width must be equal"),
        ({"k": (2, 5, 3, 8), "v": (2, 5, 3, 8)}, "3 key heads do not divide 4 query heads"),
        ({"lengths": (3,)}, r"lengths is \(3,\), torch.float32; expected \(2,\), torch.int32"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    shapes = {"q": (2, 1, 4, 8), "r": (2, 1, 4, 8), "k": (2, 5, 2, 8), "v": (2, 5, 2, 8)} | change
    with pytest.raises(ValueError, match=message):
        triton_decode(**{name: torch.zeros(shape) for name, shape in shapes.items()}, scale=1.0)


def test_types_that_differ_are_named() -> None:
    q, k = torch.zeros(1, 1, 2, 8), torch.zeros(1, 3, 2, 8, dtype=torch.float16)
    with pytest.raises(ValueError, match="are of float16, float32: the kernel takes one type"):
        triton_decode(q, q, k, k, 1.0)
