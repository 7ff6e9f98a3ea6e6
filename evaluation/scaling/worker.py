"""`python -m evaluation.scaling.worker SETTINGS`: one process of a contender; a step for each line it reads."""

import json
import sys
import time
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import partial

from parallax.runtime.threads import limit_spinning

limit_spinning()

import torch
import torch.distributed as dist

from parallax.config.layout import Layout
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.data.loader import rank_rows
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.build import SharedForm, build_native_engine
from parallax.parallel.mesh import Mesh, build_mesh
from parallax.parallel.native import NativeEngine
from parallax.parallel.traffic import sent_bytes
from parallax.runtime.allocator import keep_freed_memory
from parallax.runtime.device import resolve_precision
from parallax.train.optimizer import build_optimizer

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """One process of a contender, as JSON on the command line."""

    config: str
    overrides: list[str]
    precision: str
    threads: int
    rank: int
    world_size: int
    store: str
    """File at which the ranks meet."""
    track: int
    dp_shard: int
    shared: SharedForm
    overlap: bool


def main(text: str) -> None:
    """Builds its part, says so, then answers each line with the seconds of a step and of its update."""
    given = json.loads(text)
    settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    config = load_config(settings.config, settings.overrides)
    mesh = _join(settings)
    engine = _engine(config, settings, mesh)
    windows, keys = _own_samples(config, mesh)
    objective = Objective(chunk_tokens=config.loss.chunk_tokens)
    sent = sum(sent_bytes(engine.predict_traffic([windows], objective)).values())
    print(json.dumps({"sent_bytes": sent}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        engine.forward_backward([windows], objective, [keys])
        done = time.perf_counter()
        engine.clip_and_step(config.optim.lr)
        end = time.perf_counter()
        print(json.dumps({"step": end - start, "update": end - done}), flush=True)


def _join(settings: Settings) -> Mesh | None:
    if settings.world_size == 1:
        return None
    dist.init_process_group(
        "gloo",
        init_method=f"file://{settings.store}",
        rank=settings.rank,
        world_size=settings.world_size,
        timeout=timedelta(minutes=5),
    )
    replicas = settings.world_size // (settings.track * settings.dp_shard)
    return build_mesh(Layout(settings.track, replicas, settings.dp_shard), _CPU)


def _engine(config: RunConfig, settings: Settings, mesh: Mesh | None) -> NativeEngine:
    engine = build_native_engine(
        config.model,
        mesh=mesh,
        device=_CPU,
        attention_backend=config.runtime.attention_backend,
        shared=settings.shared,
        overlap=settings.overlap,
        precision=resolve_precision("bf16" if settings.precision == "bf16" else "fp32", _CPU),
        build_optimizer=partial(build_optimizer, config=config.optim),
        grad_clip=config.optim.grad_clip,
    )
    engine.materialize(lambda model: model.initialize(config.seed, engine.placement.put))
    return engine


def _own_samples(config: RunConfig, mesh: Mesh | None) -> tuple[torch.Tensor, torch.Tensor]:
    """This rank's rows of one batch of `micro_batch` windows, which all contenders train on."""
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    batch = torch.randint(config.model.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    own = rank_rows(len(batch), *((mesh.dp_rank, mesh.layout.dp) if mesh else (0, 1)))
    return batch[own], row_keys(0, range(own.start, own.stop))


if __name__ == "__main__":
    main(sys.argv[1])
