"""Runs the decoding kernel in Triton's interpreter, TRITON_INTERPRET=1, and prints errors by case as JSON.

An error is the largest difference from the reference in float64 over its largest value.
"""

import json

import torch
from decoding_cases import CASES, Case, inputs
from torch.library import opcheck

from parallax.attention.plla.reference import parallax_reference
from parallax.attention.plla.triton import decode_operator
from parallax.attention.plla.triton.decode import decode_kernel
from parallax.attention.plla.triton.decode_operator import triton_decode


def error(case: Case) -> float:
    q, r, k, v = inputs(case)
    lengths = None if case.lengths is None else torch.tensor(case.lengths, dtype=torch.int32)
    if lengths is not None:
        for row, length in enumerate(case.lengths):
            k[row, length:], v[row, length:] = float("nan"), float("nan")
    found = triton_decode(q, r, k, v, 0.3, lengths, splits=case.splits)
    assert found.dtype == case.dtype
    rows = []
    for row in range(2):
        length = case.keys if lengths is None else min(int(lengths[row]), case.keys)
        wide = [q[row], r[row], k[row, :length], v[row, :length]]
        rows.append(parallax_reference(*(t[None].double() for t in wide), 0.3))
    expected = torch.cat(rows)
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


def without_keys() -> float:
    """A row of no keys: zero, beside one that has some."""
    q, r, k, v = inputs(CASES["grouped"])
    found = [triton_decode(q, r, k, v, 0.3, torch.tensor([0, 9], dtype=torch.int32), splits=n) for n in (1, 3)]
    return max(output[0].abs().max().item() for output in found)


def not_a_number() -> float:
    """Of what is not a number in the values comes what is not a number."""
    q, r, k, v = inputs(CASES["grouped"])
    v[0, 3] = float("nan")
    found = triton_decode(q, r, k, v, 0.3, splits=3)
    return 0.0 if found[0].isnan().all() and not found[1].isnan().any() else 1.0


def check_operator() -> None:
    """It is what it says to compilers, split and not, with lengths and without."""
    tensors = inputs(CASES["ragged, D = 40"])
    opcheck(decode_operator._decode, (*tensors, 0.3, None, 1))
    opcheck(decode_operator._decode, (*tensors, 0.3, torch.tensor([77, 3], dtype=torch.int32), 2))


def main() -> None:
    assert type(decode_kernel).__name__ == "InterpretedFunction", type(decode_kernel)
    check_operator()
    errors = {name: error(case) for name, case in CASES.items()}
    print(json.dumps(errors | {"no keys": without_keys(), "not a number": not_a_number()}))


if __name__ == "__main__":
    main()
