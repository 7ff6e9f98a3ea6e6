"""PLLA's rows see errors of the size that they are there to see, and give every contender a line."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from evaluation.attention_bench.bandwidth import Bandwidth
from evaluation.attention_bench.shapes import Shape
from evaluation.attention_bench.task import DECODE, Task
from evaluation.gpu_proof import plla, plla_speed
from evaluation.gpu_proof.setting import Setting
from parallax.attention import select
from parallax.attention.plla.backends import ChunkedPlla, EagerPlla
from parallax.metrics.peak import Peak

QUICK = Setting(torch.device("cpu"), quick=True)


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
    assert len(rows) == sum(len(shapes) for shapes in plla_speed.SHAPES.values())
    assert {row.verdict for row in rows} == {"not possible here"}
    assert {row.reason.rpartition(" ")[2] for row in rows} == {"evaluation.bench_train", "evaluation.bench_decode"}


@pytest.mark.parametrize("task", plla_speed.SHAPES, ids=lambda task: task.name)
def test_every_contender_has_a_line_or_two(monkeypatch: pytest.MonkeyPatch, task: Task) -> None:
    monkeypatch.setattr(plla_speed, "_ITERS", 1)
    monkeypatch.setattr(plla_speed, "measure_peak", lambda *_: Peak(1e9, "told"))
    monkeypatch.setattr(plla_speed, "measure_bandwidth", lambda *_: Bandwidth(1e9, "told"))
    rows = [
        plla_speed.to_row(row) for row in plla_speed.make_bench(task, QUICK.device).measure(Shape(1, 2, 1, 16, 8))
    ]
    found = {row.what.partition(": ")[2]: row for row in rows}
    for name in ("sdpa", "chunked"):
        for caches in ("warm", "cold"):
            row = found[f"{name}, {caches} caches"]
            assert row.verdict == "measured"
            assert row.found.endswith(" ms")
            assert "x the time of sdpa" in row.reason
            assert "x the floor" in row.reason
    assert found["triton"].reason == "the Triton kernels are made for CUDA, not for cpu"
    assert found["fla"].reason == "made for CUDA, not for cpu"
    assert not any(name.startswith("eager") for name in found)


@pytest.mark.parametrize(("contender", "verdict"), [("triton", "fail"), ("fla", "not possible here")])
def test_a_failure_of_ours_is_one_and_a_peers_is_none(contender: str, verdict: str) -> None:
    bench = plla_speed.make_bench(DECODE, QUICK.device)
    blank = bench.measure(Shape(1, 2, 1, 16, 8))[-1]
    row = plla_speed.to_row(replace(blank, contender=contender, outcome="failed", reason="no kernel image"))
    assert (row.verdict, row.reason) == (verdict, "no kernel image")
