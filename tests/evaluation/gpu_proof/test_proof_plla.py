"""PLLA's rows see errors of the size that they are there to see, and give every contender a line."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from evaluation.bench.fla_peer import FlaOperators
from evaluation.gpu_proof import plla, plla_speed
from evaluation.gpu_proof.setting import Setting
from parallax.attention import select
from parallax.attention.plla.backends import ChunkedPlla, EagerPlla

QUICK = Setting(torch.device("cpu"), quick=True)
SMALL = plla_speed.Shape(2, 4, 2, 16, 16, 8)


class Wrong(EagerPlla):
    """Off by two per cent in outputs, or in gradients only."""

    def __init__(self, *, outputs: bool) -> None:
        self._outputs = outputs

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return self._spoil(super().attend(q, k, v, mask))

    def compute(
        self,
        q: Tensor,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        return self._spoil(super().compute(q, r, k, v, scale, window, mask))

    def decode(self, q: Tensor, r: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        return self._spoil(super().decode(q, r, k, v, scale))

    def _spoil(self, right: Tensor) -> Tensor:
        return right * 1.02 if self._outputs else right.detach() * -0.02 + right * 1.02


@pytest.mark.parametrize("name", plla.make_cases(QUICK))
def test_a_backend_that_is_off_fails_in_outputs_or_gradients(name: str) -> None:
    case = plla.make_cases(QUICK)[name]
    assert plla.compare("right", ChunkedPlla(), case, torch.float32).verdict == "pass"
    assert plla.compare("wrong", Wrong(outputs=True), case, torch.float32).verdict == "fail"
    gradients = plla.compare("wrong gradients", Wrong(outputs=False), case, torch.float32)
    assert gradients.verdict == ("fail" if case.learns else "pass")
    assert ("gradients" in gradients.found) is case.learns


def test_a_backend_that_raises_fails_with_what_it_says() -> None:
    class Raises(EagerPlla):
        def attend(self, *_: object) -> Tensor:
            raise RuntimeError("illegal memory access")

    row = plla.compare("raises", Raises(), plla.make_cases(QUICK)["causal"], torch.float32)
    assert (row.verdict, row.reason) == ("fail", "RuntimeError: illegal memory access")


def test_a_backend_that_is_not_here_is_impossible_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent(EagerPlla):
        name = "triton"

        def unavailable(self, device: torch.device) -> str:
            return f"not for {device.type}"

    monkeypatch.setitem(select.OPERATORS, "plla", (Absent(), EagerPlla()))
    (row,) = plla.check_plla(QUICK)
    assert (row.what, row.verdict, row.reason) == ("triton", "not possible here", "not for cpu")


def test_speed_is_not_taken_on_a_cpu() -> None:
    rows = list(plla_speed.check_plla_speed(QUICK))
    assert len(rows) == 2 * len(plla_speed.TRAINING) + len(plla_speed.DECODING)
    assert {(row.verdict, row.reason) for row in rows} == {
        ("not possible here", "kernels are timed by CUDA's events, and this is cpu")
    }


def named(backend: ChunkedPlla, name: str) -> ChunkedPlla:
    backend.name = name
    return backend


@pytest.mark.parametrize(("queries", "training"), [(16, True), (16, False), (1, False)])
def test_contenders_are_timed_in_turn_and_set_beside_each_other(
    monkeypatch: pytest.MonkeyPatch, queries: int, training: bool
) -> None:
    used: list[str] = []

    def peer(name: str) -> Callable[..., Tensor]:
        return lambda q, r, k, v: (used.append(name), q + r + k[:, :1, :1] + v[:, :1, :1])[1]

    monkeypatch.setattr(plla_speed, "load_fla", lambda: FlaOperators(*map(peer, ("naive", "kernel", "decode"))))
    monkeypatch.setitem(
        select.OPERATORS, "plla", (named(ChunkedPlla(), "triton"), named(ChunkedPlla(), "chunked"), EagerPlla())
    )
    shape = plla_speed.Shape(2, 4, 2, queries, 16, 8)
    rows = list(plla_speed.rows_of("a", plla_speed.contenders(QUICK, shape, training=training), QUICK))
    assert [row.what for row in rows] == [
        "a: triton",
        "a: chunked",
        "a: softmax attention (sdpa)",
        "a: fla-core",
    ]
    assert all(row.verdict == "measured" and row.found.endswith(" ms") for row in rows)
    assert ["triton takes" in row.reason for row in rows] == [False, True, True, True]
    assert set(used) == {"decode" if queries == 1 else "kernel"}
    assert len(used) > plla_speed._ROUNDS


@pytest.mark.parametrize("fault", ["absent", "raises"])
def test_a_peer_that_cannot_run_is_named_and_the_others_are_timed(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("no such instruction\nmore")

    absent = "fla-core is not installed"
    monkeypatch.setattr(
        plla_speed, "load_fla", lambda: absent if fault == "absent" else FlaOperators(*[broken] * 3)
    )
    rows = list(plla_speed.rows_of("a", plla_speed.contenders(QUICK, SMALL, training=True), QUICK))
    found = {row.what: row for row in rows}
    assert found["a: triton"].verdict == found["a: fla-core"].verdict == "not possible here"
    expected = absent if fault == "absent" else "fla-core raised RuntimeError: no such instruction"
    assert found["a: fla-core"].reason == expected
    assert found["a: chunked"].verdict == "measured"
    assert "triton takes" not in found["a: chunked"].reason
