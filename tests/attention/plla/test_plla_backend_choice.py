"""Which backend of PLLA a library's call and a model get, who may decide it, and how it is explained."""

import pytest
import torch
from plla_cases import CASES, Case, inputs

from parallax.attention import plla, select
from parallax.attention.plla.api import parallax_decode, parallax_func
from parallax.attention.plla.backends import ChunkedPlla, EagerPlla
from parallax.attention.plla.reference import parallax_reference
from parallax.errors import BackendError

CPU = torch.device("cpu")
VARIABLE = "PARALLAX_PLLA_BACKEND"
NO_CUDA = "the Triton kernels are made for CUDA, not for cpu"


class Counting(ChunkedPlla):
    """Counts what it is asked for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.calls = 0

    def compute(self, *given: object) -> torch.Tensor:
        self.calls += 1
        return super().compute(*given)

    def decode(self, *given: object) -> torch.Tensor:
        self.calls += 1
        return super().decode(*given)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counting]:
    backends = {name: Counting(name) for name in ("first", "second")}
    monkeypatch.setitem(select.OPERATORS, "plla", tuple(backends.values()))
    monkeypatch.delenv(VARIABLE, raising=False)
    return backends


@pytest.mark.parametrize("decoding", [False, True])
@pytest.mark.parametrize(
    ("requested", "environment", "taken"),
    [
        ("auto", None, "first"),
        ("auto", "", "first"),
        ("auto", "auto", "first"),
        ("auto", "second", "second"),
        ("second", None, "second"),
        ("first", "second", "first"),
    ],
)
def test_an_argument_decides_before_the_environment_and_that_before_the_order(
    counting: dict[str, Counting],
    monkeypatch: pytest.MonkeyPatch,
    requested: str,
    environment: str | None,
    taken: str,
    decoding: bool,
) -> None:
    if environment is not None:
        monkeypatch.setenv(VARIABLE, environment)
    tensors = inputs(Case(4, 2, 1, 9, 8))
    if decoding:
        parallax_decode(*(t.transpose(1, 2) for t in tensors), backend=requested)
    else:
        parallax_func(*tensors, backend=requested)
    assert {name: backend.calls for name, backend in counting.items()} == {
        name: int(name == taken) for name in counting
    }


def test_a_model_hears_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "eager")
    choice = select.choose_backend("plla", "auto", CPU)
    assert (choice.backend.name, choice.reason) == ("eager", f"asked for by {VARIABLE}")
    assert select.choose_backend("softmax", "auto", CPU).backend.name == "chunked"


@pytest.mark.parametrize("function", [parallax_func, parallax_decode])
@pytest.mark.parametrize(
    ("requested", "environment", "message"),
    [
        ("triton", None, f"backend=triton: {NO_CUDA}; use backend=auto"),
        ("auto", "triton", f"{VARIABLE}=triton: {NO_CUDA}; use {VARIABLE}=auto"),
        ("chunkd", None, "backend='chunkd' is unknown for plla attention; did you mean 'chunked'?"),
        ("auto", "x", f"{VARIABLE}='x' is unknown for plla attention; known: auto, triton, chunked, eager"),
    ],
)
def test_what_is_asked_for_and_cannot_be_had_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, function: object, requested: str, environment: str | None, message: str
) -> None:
    if environment is not None:
        monkeypatch.setenv(VARIABLE, environment)
    with pytest.raises(BackendError) as caught:
        function(*inputs(CASES["one token"]), backend=requested)
    assert str(caught.value) == message


@pytest.mark.parametrize("backend", [EagerPlla(), ChunkedPlla()], ids=["eager", "chunked"])
def test_decoding_by_any_backend_gives_the_last_row_of_the_reference(backend: EagerPlla) -> None:
    rows = [t.transpose(1, 2) for t in inputs(Case(8, 2, 1, 77, 16))]
    found = parallax_decode(*rows, qk_scale=0.3, backend=backend.name)
    torch.testing.assert_close(found, parallax_reference(*rows, 0.3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", [EagerPlla(), ChunkedPlla()], ids=["eager", "chunked"])
def test_decoding_has_gradients_where_they_are_asked_for(backend: EagerPlla) -> None:
    rows = [t.transpose(1, 2).requires_grad_() for t in inputs(Case(2, 1, 1, 5, 4))]
    assert torch.autograd.gradcheck(lambda *given: parallax_decode(*given, backend=backend.name), rows)


def test_it_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert str(plla.explain("cpu")).splitlines() == [
        "plla on cpu: chunked; first of triton, chunked, eager on cpu",
        f"  triton: {NO_CUDA}",
        "  chunked: available",
        "  eager: available",
    ]
    monkeypatch.setenv(VARIABLE, "eager")
    assert (plla.explain("cpu").chosen, plla.explain("cpu").reason) == ("eager", f"asked for by {VARIABLE}")
    monkeypatch.setenv(VARIABLE, "triton")
    assert str(plla.explain("cpu")).startswith(f"plla on cpu: none; {VARIABLE}=triton: {NO_CUDA}")


def test_a_device_that_is_not_here_is_explained_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert plla.explain("cuda").backends[0] == ("triton", "this PyTorch sees no CUDA device")
    assert plla.explain().device == "cpu"
