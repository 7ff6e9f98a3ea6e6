"""The Triton backend with stand-ins for its kernels, which need a GPU: when it is taken, what it hands them."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from plla_cases import CASES, Case, inputs
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _triton

from parallax.attention.plla import triton_backend
from parallax.attention.plla.backends import ChunkedPlla, EagerPlla
from parallax.attention.plla.triton_backend import TritonPlla
from parallax.attention.select import choose_backend, explain

CUDA = torch.device("cuda", 0)
FOLDER = "parallax.attention.plla.triton"
Function = Callable[..., Tensor]


def right(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, *seen: Any) -> Tensor:
    return ChunkedPlla().compute(q, r, k, v, scale, *seen)


def right_decode(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    assert not any(t.requires_grad for t in (q, r, k, v))
    return ChunkedPlla().decode(q, r, k, v, scale)


def wrong(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, *seen: Any) -> Tensor:
    return right(q, r * 1.5, k, v, scale, *seen)


def wrong_mask(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, *seen: Any) -> Tensor:
    return right(q, r, k, v, scale, seen[0])


def wrong_backward(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float, *seen: Any) -> Tensor:
    return right(q, r.detach() + 0 * r, k, v, scale, *seen)


def wrong_decode(q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return right_decode(q, r, k, v, scale) * float("nan")


def raises(*_: object) -> Tensor:
    raise RuntimeError("no kernel image\nmore")


class Surroundings:
    """A card of some capability whose tensors lie on the CPU, and modules in the place of the kernels'."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        prove = triton_backend.probe_error
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(_triton, "has_triton", lambda: True)
        monkeypatch.setattr(triton_backend, "probe_error", lambda device: prove(torch.device("cpu")))
        self.capability = (8, 6)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: self.capability)

    def put(self, plla: Function = right, decode: Function = right_decode) -> TritonPlla:
        for name, function in (("operators.triton_plla", plla), ("decode_operator.triton_decode", decode)):
            module, _, called = name.partition(".")
            stand_in = ModuleType(module)
            setattr(stand_in, called, function)
            self._patch.setitem(sys.modules, f"{FOLDER}.{module}", stand_in)
        return TritonPlla()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Surroundings]:
    pytest.importorskip("triton")
    triton_backend._why_no_triton.cache_clear()
    triton_backend._prove.cache_clear()
    yield Surroundings(monkeypatch)
    triton_backend._why_no_triton.cache_clear()
    triton_backend._prove.cache_clear()


def passed_over() -> str:
    """Why `auto` left it out."""
    choice = choose_backend("plla", "auto", CUDA)
    assert (choice.backend.name, choice.reason) == ("chunked", "first of triton, chunked, eager on cuda")
    name, reason = explain("plla", CUDA)[0]
    assert name == "triton"
    assert "\n" not in reason
    return reason


@pytest.mark.parametrize(
    ("plla", "decode", "why"),
    [
        (wrong, right_decode, "the Triton backend gave wrong numbers on cuda:0: error "),
        (wrong_mask, right_decode, "the Triton backend gave wrong numbers on cuda:0: error "),
        (wrong_backward, right_decode, "the Triton backend gave wrong numbers on cuda:0: error "),
        (right, wrong_decode, "the Triton backend gave wrong numbers on cuda:0: error nan"),
        (raises, right_decode, "the Triton backend failed its trial on cuda:0: no kernel image"),
        (right, raises, "the Triton backend failed its trial on cuda:0: no kernel image"),
    ],
)
def test_kernels_that_are_off_or_do_not_start_are_passed_over(
    here: Surroundings, plla: Function, decode: Function, why: str
) -> None:
    here.put(plla, decode)
    assert passed_over().startswith(why)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (9, 0)])
def test_auto_takes_it_from_sm_80_on(here: Surroundings, capability: tuple[int, int]) -> None:
    here.put()
    here.capability = capability
    assert choose_backend("plla", "auto", CUDA).backend.name == "triton"
    assert explain("plla", CUDA)[0] == ("triton", "available")


def test_a_card_whose_tensor_cores_triton_does_not_use_gets_the_chunked_path(here: Surroundings) -> None:
    here.put()
    here.capability = (7, 5)
    assert passed_over() == "Triton's use of tensor cores needs sm_80 or later, this device is sm_75"


def test_it_is_chosen_where_shapes_are_traced(here: Surroundings) -> None:
    """The trial takes tensors that hold numbers all the same."""
    here.put()
    with FakeTensorMode():
        assert choose_backend("plla", "auto", CUDA).backend.name == "triton"


def test_without_triton_the_reason_is_that(here: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    here.put()
    monkeypatch.setitem(sys.modules, "triton", None)
    assert passed_over() == "triton is not installed"


def test_a_hollow_triton_is_named(here: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports, and what the kernels need of it is not there."""
    for name in [name for name in sys.modules if name.startswith(f"{FOLDER}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    assert passed_over().startswith("triton is installed but ")


def test_a_triton_that_compiles_for_nothing_here_is_named(
    here: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.put()
    monkeypatch.setattr(_triton, "has_triton", lambda: False)
    assert passed_over() == "triton is installed but compiles for no device here"


def test_it_is_not_for_the_cpu() -> None:
    why = TritonPlla().unavailable(torch.device("cpu"))
    assert why == "the Triton kernels are made for CUDA, not for cpu"


def first_and_earlier(case: Case) -> Tensor:
    """(1, 1, T, S) without the diagonal."""
    mask = torch.ones(1, 1, case.queries, case.keys, dtype=torch.bool).tril(-1)
    mask[..., 0] = True
    return mask


def model_inputs(case: Case, dtype: torch.dtype) -> list[Tensor]:
    q, r, k, v = inputs(case, dtype)
    return [torch.cat((r, q), dim=1), k, v]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["grouped", "fewer queries", "one token"])
def test_models_get_the_definition_from_the_kernels(here: Surroundings, name: str, masked: bool) -> None:
    used: list[str] = []
    backend = here.put(
        lambda *given: (used.append("plla"), right(*given))[1],
        lambda *given: (used.append("decode"), right_decode(*given))[1],
    )
    q, k, v = model_inputs(CASES[name], torch.float32)
    mask = first_and_earlier(CASES[name]) if masked else None
    found = backend.attend(q, k, v, mask)
    of_one = [] if masked else ["decode"]
    assert used == (of_one if CASES[name].queries == 1 else ["plla"])
    torch.testing.assert_close(found, EagerPlla().attend(q, k, v, mask), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("case", "dtype", "masked"),
    [
        (CASES["grouped"], torch.float64, True),
        (CASES["grouped"], torch.float64, False),
        (CASES["one token"], torch.float64, False),
        (CASES["one token"], torch.float32, True),
        (Case(2, 1, 3, 5, 264), torch.float32, False),
        (Case(2, 1, 3, 5, 136), torch.float32, False),
        (Case(2, 1, 1, 5, 264), torch.float32, False),
    ],
)
def test_what_the_kernels_do_not_take_the_chunked_path_serves(
    here: Surroundings, case: Case, dtype: torch.dtype, masked: bool
) -> None:
    backend = here.put(raises, raises)
    q, k, v = model_inputs(case, dtype)
    mask = first_and_earlier(case) if masked else None
    expected = EagerPlla().attend(q, k, v, mask)
    torch.testing.assert_close(backend.attend(q, k, v, mask), expected, rtol=1e-5, atol=1e-5)


def test_one_query_that_learns_gets_its_gradient(here: Surroundings) -> None:
    backend = here.put(decode=raises)
    q, k, v = (t.requires_grad_() for t in model_inputs(Case(4, 2, 1, 9, 16), torch.float32))
    backend.attend(q, k, v, None).sum().backward()
    expected = torch.autograd.grad(EagerPlla().attend(q, k, v, None).sum(), q)[0]
    torch.testing.assert_close(q.grad, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad(), pytest.raises(RuntimeError, match="no kernel image"):
        backend.attend(q, k, v, None)
