"""Running out of memory: one line with advice, and micro-batches found by trying."""

from typing import Any

import pytest
import torch
from test_fit import _run

from parallax.errors import ConfigError, OutOfMemoryError
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import resolve_precision
from parallax.train.planning.auto_batch import largest_that_fits, settle_micro_batch
from parallax.train.planning.out_of_memory import advising_when_full
from parallax.train.world import World

CPU = torch.device("cpu")
FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(FULL),
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_lack_of_memory_is_one_line_with_a_change_to_add(error: Exception) -> None:
    match = r"train\.micro_batch=8, .*; add (train|loss)\."
    with pytest.raises(OutOfMemoryError, match=match), advising_when_full(_run(), 1, CPU):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), advising_when_full(_run(), 1, CPU):
        raise RuntimeError("shapes differ")


def _limit_to(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    forward_backward = NativeEngine.forward_backward

    def limited(self: NativeEngine, windows: Any, *rest: Any) -> Any:
        if len(windows[0]) > most:
            raise RuntimeError(FULL)
        return forward_backward(self, windows, *rest)

    monkeypatch.setattr(NativeEngine, "forward_backward", limited)


def test_the_largest_micro_batch_that_fits_is_found_and_the_global_batch_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _limit_to(monkeypatch, 3)
    said: list[str] = []
    config = _run(**{"train.auto_batch": True})
    found = settle_micro_batch(config, None, World(), CPU, resolve_precision("fp32", CPU), said.append)
    assert (found.train.micro_batch, found.train.global_batch) == (2, 8)
    assert "train.micro_batch=2" in said[0]


def test_a_run_that_goes_on_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _limit_to(monkeypatch, 0)
    config = _run(**{"train.auto_batch": True})
    saved = _run(**{"train.auto_batch": True, "train.micro_batch": 4})
    found = settle_micro_batch(config, saved, World(), CPU, resolve_precision("fp32", CPU), print)
    assert found.train.micro_batch == 4


def test_where_not_one_sequence_fits_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _limit_to(monkeypatch, 0)
    config = _run(**{"train.auto_batch": True})
    with pytest.raises(OutOfMemoryError, match="not even one sequence"):
        settle_micro_batch(config, None, World(), CPU, resolve_precision("fp32", CPU), print)


def test_a_rank_without_memory_decides_for_all() -> None:
    votes = iter([True, False])
    assert largest_that_fits(8, 8, lambda size: None, lambda mine: mine or next(votes)) == 4


def test_deepspeed_is_refused_with_the_way_out() -> None:
    config = _run(**{"train.auto_batch": True, "parallel.engine": "deepspeed"})
    with pytest.raises(ConfigError, match="ask `parallax plan --memory`"):
        settle_micro_batch(config, None, World(), CPU, resolve_precision("fp32", CPU), print)
