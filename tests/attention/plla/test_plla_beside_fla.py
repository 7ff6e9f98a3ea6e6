"""The package fla-core as a second oracle of PLLA, written by others; its kernels need a GPU."""

import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder

import pytest
import torch
from plla_cases import CASES, inputs
from torch import Tensor

from evaluation.bench import fla_peer
from evaluation.bench.fla_peer import FlaOperators, fla_kernel, load_fla
from parallax.attention.plla.api import parallax_func
from parallax.attention.plla.reference import parallax_reference

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(scope="module")
def package() -> FlaOperators:
    pytest.importorskip("triton")
    found = load_fla()
    assert isinstance(found, FlaOperators), found
    return found


@pytest.fixture
def _anew() -> Iterator[None]:
    load_fla.cache_clear()
    yield
    load_fla.cache_clear()


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value."""
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize(
    "name", ["plain", "one token", "ragged, D = 40", "grouped", "window", "window of one", "wide"]
)
def test_output_and_gradients_are_those_of_the_package(
    package: FlaOperators, name: str, scale: float | None
) -> None:
    """It computes in fp32 whatever it is given, ours here in float64, and the chunked path in fp32."""
    case = CASES[name]
    exact = [t.transpose(1, 2).contiguous().requires_grad_() for t in inputs(case)]
    theirs = [t.detach().float().requires_grad_() for t in exact]
    chunked = [t.detach().transpose(1, 2).requires_grad_() for t in theirs]
    outputs = [
        parallax_reference(*exact, scale, window=case.window),
        package.naive(*theirs, scale, case.window),
        parallax_func(*chunked, scale, window=case.window, backend="chunked"),
    ]
    grad = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    outputs[0].backward(grad)
    outputs[1].backward(grad.float())
    outputs[2].backward(grad.transpose(1, 2).float())
    assert off(outputs[1], outputs[0].detach()) < 5e-6
    assert off(outputs[2].transpose(1, 2), outputs[0].detach()) < 2e-6
    # The direction of a row that sees one key has no effect, and rounding errors for a gradient.
    size = max(t.grad.abs().max() for t in exact)
    for mine, other, parts in zip(exact, theirs, chunked, strict=True):
        assert (other.grad - mine.grad).abs().max() < 5e-6 * size
        assert (parts.grad.transpose(1, 2) - mine.grad).abs().max() < 5e-6 * size


def test_the_kernel_is_there_for_gpus_alone(package: FlaOperators) -> None:
    assert fla_kernel(CUDA) is package.kernel
    assert fla_kernel(CPU) == "the kernels of fla-core are made for GPUs, not for cpu"


@pytest.mark.usefixtures("_anew")
def test_without_the_package_the_reason_is_that(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, *_: object) -> None:
            if fullname == "fla":
                raise ModuleNotFoundError("No module named 'fla'", name="fla")

    for name in [name for name in sys.modules if name.partition(".")[0] == "fla"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Nowhere, *sys.meta_path])
    assert load_fla() == fla_kernel(CUDA) == "fla-core is not installed"


@pytest.mark.usefixtures("_anew")
def test_a_package_that_breaks_when_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(label: str, module: str) -> str:
        return f"{label} is installed but does not import: {module}"

    monkeypatch.setattr(fla_peer, "load_package", load)
    assert fla_kernel(CUDA) == "fla-core is installed but does not import: fla.ops.parallax"
