"""`python -m evaluation.scaling.worker SETTINGS`: one process of a contender; a step for each line it reads."""

import json
import sys
import time
from dataclasses import dataclass, fields
from datetime import timedelta

from parallax.runtime.threads import limit_spinning

limit_spinning()

import torch
import torch.distributed as dist

from evaluation.scaling.trainers import EngineTrainer, TensorParallelTrainer, Trainer
from evaluation.scaling.waiting import WaitClock
from parallax.config.layout import Layout
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.parallel.build import SharedForm
from parallax.parallel.mesh import build_mesh
from parallax.runtime.allocator import keep_freed_memory
from parallax.runtime.device import resolve_precision

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
    track_across: bool
    shared: SharedForm
    overlap: bool
    tensor: bool


def main(text: str) -> None:
    """Builds its part and says so; then answers each line, a number of rows, with what a step of them took."""
    given = json.loads(text)
    settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    config = load_config(settings.config, settings.overrides)
    trainer = _join(config, settings)
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    batch = torch.randint(config.model.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    sent: dict[int, int] = {}
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        windows = batch[: int(line)]
        with WaitClock() as clock:
            start = time.perf_counter()
            trainer.gradients(windows)
            done, waited = time.perf_counter(), clock.seconds
            trainer.update()
            end = time.perf_counter()
        taken = {"step": end - start, "update": end - done, "wait": waited}
        if len(windows) not in sent:
            sent[len(windows)] = trainer.sent_bytes(windows)
        print(json.dumps(taken | {"sent_bytes": sent[len(windows)]}), flush=True)


def _join(config: RunConfig, settings: Settings) -> Trainer:
    precision = resolve_precision("bf16" if settings.precision == "bf16" else "fp32", _CPU)
    mesh = None
    if settings.world_size > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{settings.store}",
            rank=settings.rank,
            world_size=settings.world_size,
            timeout=timedelta(minutes=5),
        )
        if settings.tensor:
            return TensorParallelTrainer(config, precision)
        replicas = settings.world_size // (settings.track * settings.dp_shard)
        layout = Layout(settings.track, replicas, settings.dp_shard, settings.track_across)
        mesh = build_mesh(layout, _CPU)
    return EngineTrainer(config, precision, mesh, settings.shared, settings.overlap)


if __name__ == "__main__":
    main(sys.argv[1])
