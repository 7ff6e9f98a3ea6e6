"""PLLA as the package fla-core has it, `fla.ops.parallax`: a second oracle, and kernels to be measured against."""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from parallax.attention.trial import load_package

PeerOperator = Callable[..., Tensor]
"""(q, r, k, v, scale, window): q, r (B, T, H, D) and k, v (B, T, G, D), as many queries as keys; to (B, T, H, D).

Scale is of q.k only, the window counts the query's own key, and the correction has our sign.
"""


class FlaOperators(NamedTuple):
    """What the package has of PLLA."""

    naive: PeerOperator
    """The definition in fp32, without centring."""
    kernel: PeerOperator
    """In Triton, for fp16 and bf16 on a GPU, with gradients; to be beaten there."""
    decode: PeerOperator
    """The same of one query (B, 1, H, D) over all keys (B, S, G, D), without gradients."""


@functools.cache
def load_fla() -> FlaOperators | str:
    """The package's operators, or in one line why they cannot be had."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a GPU it warns of that, and of parts of PyTorch that it touches
        package = load_package("fla-core", "fla.ops.parallax")
        decoding = load_package("fla-core", "fla.ops.parallax.decode")
    for found in (package, decoding):
        if isinstance(found, str):
            return found
    return FlaOperators(package.naive_parallax, package.parallel_parallax, decoding.parallax_decode_one_step)


def fla_kernel(device: torch.device) -> PeerOperator | str:
    """The package's kernel, or in one line why it does not run on `device`."""
    if device.type != "cuda":
        return f"the kernels of fla-core are made for GPUs, not for {device.type}"
    package = load_fla()
    return package if isinstance(package, str) else package.kernel
