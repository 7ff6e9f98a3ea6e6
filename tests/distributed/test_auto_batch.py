"""`train.auto_batch` over ranks that share tracks or weights: one without memory decides for all."""

import pytest
import torch
import torch.distributed as dist
from conftest import PoolOf

from evaluation.measured_step import small_run
from parallax.config.layout import resolve_layout
from parallax.errors import ConfigError
from parallax.parallel.mesh import build_mesh
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import resolve_precision
from parallax.runtime.ranks import Ranks
from parallax.train.planning.auto_batch import settle_micro_batch
from parallax.train.world import World

CPU = torch.device("cpu")
FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
LAYOUTS = {
    "tracks": {"parallel__track": 2},
    "tracks-copied": {"parallel__track": 2, "parallel__shared": "copy_reduce"},
    "shards": {"parallel__dp_shard": 2},
    "copies": {},
}


def settled_batch(settings: dict[str, object], most: int, poor_rank: int) -> tuple[int, int, float]:
    """The micro-batch and global batch found where one rank lacks memory in a step; a sum over all."""
    config = small_run(2, train__auto_batch=True, **settings)
    layout = resolve_layout(config.parallel, config.model.num_tracks, 2)
    world = World()
    world.join(Ranks(dist.get_rank(), 2), build_mesh(layout, CPU), dist.new_group(), dist.new_group())
    run = NativeEngine._run

    def limited(engine: NativeEngine, batch: object, objective: object) -> object:
        if dist.get_rank() == poor_rank and len(batch.tokens) > most:  # type: ignore[attr-defined]
            raise RuntimeError(FULL)
        return run(engine, batch, objective)  # type: ignore[arg-type]

    NativeEngine._run = limited  # type: ignore[method-assign,assignment]
    try:
        found = settle_micro_batch(config, None, world, CPU, resolve_precision("fp32", CPU), lambda _: None)
    finally:
        NativeEngine._run = run  # type: ignore[method-assign]
    together = torch.ones(())
    dist.all_reduce(together)
    return found.train.micro_batch, found.train.global_batch, float(together)


@pytest.mark.parametrize("poor_rank", [0, 1])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_rank_takes_what_the_poorest_can(name: str, poor_rank: int, pool_of: PoolOf) -> None:
    found = pool_of(2).run(settled_batch, LAYOUTS[name], 3, poor_rank)
    assert found == [(2, 16, 2.0)] * 2


def refused() -> str:
    config = small_run(2, train__auto_batch=True, parallel__engine="deepspeed")
    with pytest.raises(ConfigError) as caught:
        settle_micro_batch(config, None, World(), CPU, resolve_precision("fp32", CPU), lambda _: None)
    return str(caught.value)


def test_deepspeed_is_refused_with_the_way_out() -> None:
    assert "ask `parallax plan --memory` for a train.micro_batch" in refused()
