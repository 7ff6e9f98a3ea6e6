"""DeepSpeed's own code, rehearsed: what it plans, and that it leaves PyTorch as it was."""

import os
from typing import Any

import pytest
import torch
from test_fit import _run
from torch import nn

from parallax.train.planning.rank_plan import RankPlan
from parallax.train.planning.rehearsal import plan_rank

pytestmark = pytest.mark.deepspeed


def _plan(stage: int, world_size: int = 2, **settings: Any) -> RankPlan:
    zero = {"parallel.engine": "deepspeed", "deepspeed.zero_stage": stage, "train.micro_batch": 2}
    return plan_rank(_run(**zero, **settings), world_size=world_size, rank=world_size - 1)


def _surroundings() -> dict[str, Any]:
    import deepspeed.comm.comm as comm
    import deepspeed.utils.groups as groups
    from deepspeed.accelerator import real_accelerator

    makers = ("tensor", "empty", "zeros", "ones", "full", "arange", "eye", "randn")
    return {
        **{f"torch.{name}": getattr(torch, name) for name in makers},
        "Tensor.__new__": torch.Tensor.__new__,
        "linear": nn.functional.linear,
        "embedding": nn.functional.embedding,
        "Module.apply": nn.Module.apply,
        "Module._apply": nn.Module._apply,
        "Module.__init_subclass__": vars(nn.Module).get("__init_subclass__"),
        "Linear.__init__": nn.Linear.__init__,
        "backend": comm.cdb,
        "groups": (groups._WORLD_GROUP, groups.mpu),
        "accelerator": real_accelerator.ds_accelerator,
        "environment": {name: os.environ.get(name) for name in ("DS_ACCELERATOR", "LOCAL_RANK")},
    }


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_rehearsal_leaves_pytorch_and_deepspeed_as_they_were(stage: int) -> None:
    pytest.importorskip("deepspeed")
    _plan(0)  # what is imported once is there
    before = _surroundings()
    product = nn.functional.linear(torch.ones(3, 5, dtype=torch.bfloat16), torch.full((4, 5), 0.3).bfloat16())
    _plan(stage)
    after = _surroundings()
    assert [name for name in before if before[name] is not after[name] and before[name] != after[name]] == []
    again = nn.functional.linear(torch.ones(3, 5, dtype=torch.bfloat16), torch.full((4, 5), 0.3).bfloat16())
    assert torch.equal(again, product)
    assert not torch.distributed.is_initialized()


def test_the_process_is_restored_where_the_rehearsal_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("in the middle")

    _plan(0)
    before = _surroundings()
    monkeypatch.setattr("parallax.parallel.deepspeed.engine.DeepSpeedEngine.clip_and_step", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        _plan(3)
    assert _surroundings()["linear"] is before["linear"]
    assert not torch.distributed.is_initialized()


def test_each_stage_divides_what_it_says() -> None:
    states = {stage: _held(_plan(stage, world_size=4), "optimizer states") for stage in range(4)}
    parameters = sum(_plan(1, world_size=4).parameters.values())
    assert states[0] == pytest.approx(8 * parameters, rel=0.01)  # two fp32 moments
    for stage in (1, 2, 3):
        assert states[stage] == pytest.approx(12 * parameters / 4, rel=0.02)  # and a master, which stage 0 has not


def test_16_bits_halve_the_weights() -> None:
    wide, narrow = (_held(_plan(2, **{"train.precision": name}), "weights") for name in ("fp32", "bf16"))
    assert narrow == wide / 2


def test_what_the_host_keeps_is_left_out_of_a_gpus_plan_and_named() -> None:
    config = _run(**{"parallel.engine": "deepspeed", "deepspeed.offload_optimizer": True, "train.micro_batch": 2})
    on_gpu = config.model_copy(update={"runtime": config.runtime.model_copy(update={"device": "cuda"})})
    here, there = (plan_rank(run, world_size=2, rank=0) for run in (config, on_gpu))
    assert _held(here, "optimizer states") > 0
    assert _held(there, "optimizer states") == 0
    assert any("on the host, not counted" in note for note in there.notes)


def test_zeros_collectives_are_counted() -> None:
    found = {(c.axis, c.kind) for c, _ in _plan(2, world_size=4, **{"parallel.track": 2}).collectives}
    assert ("track", "all_to_all") in found
    assert any(axis == "dp" for axis, _ in found)


def _held(planned: RankPlan, kind: str) -> int:
    return max(phase.get(kind, 0) for phase in planned.memory.values())
