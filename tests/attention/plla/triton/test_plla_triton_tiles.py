"""Tiles for every GPU, and what the operator refuses; nothing here runs a kernel."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from parallax.attention.plla.triton.tiles import KERNELS, shared_memory_bytes, tiles_for


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0), (13, 7)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_width_has_a_tile_on_every_gpu(kernel: str, capability: tuple[int, int]) -> None:
    for width in (1, 8, 32, 40, 64, 100, 128, 256):
        for element_bytes in (2, 4) if width <= 128 else (2,):
            assert tiles_for(kernel, width, capability, element_bytes)


def test_a_gpu_with_less_shared_memory_gets_smaller_tiles() -> None:
    assert shared_memory_bytes((8, 6)) < shared_memory_bytes((8, 0)) < shared_memory_bytes((9, 0))
    small, large = (tiles_for("backward_queries", 128, capability)[0] for capability in ((8, 6), (9, 0)))
    assert small.block_queries * small.block_keys < large.block_queries * large.block_keys


def test_a_gpu_that_is_not_listed_is_taken_to_have_the_least() -> None:
    assert shared_memory_bytes((13, 7)) == shared_memory_bytes((8, 6))


def test_what_the_kernels_cannot_do_is_named() -> None:
    with pytest.raises(ValueError, match="width=257: the kernels take heads of 256 numbers at most"):
        tiles_for("forward", 257, (9, 0))
    with pytest.raises(ValueError, match="width=129: the kernels take heads of 128 numbers of fp32 at most"):
        tiles_for("forward", 129, (9, 0), element_bytes=4)
    with pytest.raises(ValueError, match=r"capability 7\.5: the kernels need 8\.0 or later"):
        tiles_for("forward", 64, (7, 5))


def test_types_that_differ_are_named() -> None:
    pytest.importorskip("triton")
    from parallax.attention.plla.triton.operators import triton_plla

    q, k = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)
    with pytest.raises(
        ValueError, match="q, r, k, v are float32, float32, bfloat16, bfloat16: the kernels take one"
    ):
        triton_plla(q, q, k, k, 0.3)
    with pytest.raises(ValueError, match="float64"):
        triton_plla(q.double(), q.double(), q.double(), q.double(), 0.3)


def test_shapes_are_known_without_computing() -> None:
    pytest.importorskip("triton")
    from parallax.attention.plla.triton.operators import triton_plla

    with FakeTensorMode():
        q = torch.empty(2, 9, 4, 8, dtype=torch.bfloat16, requires_grad=True).transpose(1, 2)
        k = torch.empty(2, 2, 13, 8, dtype=torch.bfloat16)
        output = triton_plla(q, q, k, k, 0.3)
        (gradient,) = torch.autograd.grad(output, q, torch.ones_like(output))
    assert output.shape == q.shape == gradient.shape
    assert output.is_contiguous()


def test_the_package_does_without_triton() -> None:
    program = (
        "import sys; sys.modules['triton'] = None; "
        "import parallax, parallax.attention.plla.api, parallax.attention.plla.backends; "
        "import parallax.attention.plla.triton.tiles"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
