"""What is compiled between PLLA's products gives what is written, which serves where nothing compiles."""

import logging

import pytest
import torch
from plla_cases import CASES, Case, inputs

from parallax.attention.plla import chunked, decode, fused
from parallax.attention.plla.api import parallax_decode, parallax_func
from parallax.attention.plla.chunked import chunked_plla
from parallax.attention.plla.reference import parallax_reference


@pytest.fixture(autouse=True)
def _nothing_failed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_failures", [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["plain", "window, fewer queries", "masked"])
def test_compiled_parts_give_the_references_output_and_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES.get(name, Case(4, 2, 70, 70, 8))
    mask = torch.ones(2, 1, 70, 70, dtype=torch.bool).tril().triu(-9) if name == "masked" else None
    monkeypatch.setattr(chunked, "_LEAST_FUSED", 0)
    ours, theirs = ([t.requires_grad_() for t in inputs(case)] for _ in range(2))
    found = chunked_plla(*ours, case.width**-0.5, case.window, mask)
    turned = (t.transpose(1, 2) for t in theirs)
    expected = parallax_reference(*turned, window=case.window, mask=mask).transpose(1, 2)
    grad = torch.randn(found.shape, dtype=torch.float64)
    found.backward(grad)
    expected.backward(grad)
    assert fused._failures == []
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_compiled_decoding_gives_the_last_row_whatever_the_length(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_LEAST_FUSED", 0)
    for keys in (5, 16, 48, 49, 300):
        exact = [t.to(dtype).double().transpose(1, 2) for t in inputs(Case(8, 2, 1, keys, 16), key_mean=4.0)]
        found, expected = parallax_decode(*(t.to(dtype) for t in exact)), parallax_reference(*exact)
        limit = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 1e-2}[dtype]
        assert (found - expected).abs().max() <= limit * expected.abs().max()
    assert fused._failures == []


def test_without_a_compiler_it_says_so_once_and_computes_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("No working C++ compiler found\nand a long report")

    monkeypatch.setattr(torch, "compile", broken)
    add = fused.fused(torch.add)
    with caplog.at_level(logging.WARNING):
        assert add(torch.tensor(1), torch.tensor(2)) == 3
        assert add(torch.tensor(3), torch.tensor(4)) == 7
    assert fused.fused(torch.add, otherwise=torch.sub)(torch.tensor(3), torch.tensor(4)) == -1
    assert [record.getMessage() for record in caplog.records] == [
        "PLLA's element-wise parts are not compiled, which makes it slower: No working C++ compiler found"
    ]


def test_small_calls_do_not_wake_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> object:
        raise AssertionError("compiled")

    for module, name in ((chunked, "_weigh"), (chunked, "_score_gradients"), (decode, "_fused_sums")):
        monkeypatch.setattr(module, name, never)
    q, r, k, v = (t.requires_grad_() for t in inputs(CASES["plain"]))
    parallax_func(q, r, k, v).sum().backward()
    parallax_decode(*(t.detach().transpose(1, 2)[:, -1:] for t in (q, r)), *(t.transpose(1, 2) for t in (k, v)))
