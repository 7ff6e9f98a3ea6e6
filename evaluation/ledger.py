"""`python -m evaluation.ledger [--config FILE] [--set key=value]`: what two ranks send each other in a step."""

import argparse
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.multiprocessing.spawn import spawn
from torch.optim import AdamW

from evaluation.dual_track import as_dual_track
from evaluation.gpt2_tensor_parallel import Gpt2Pairs, apply_tensor_parallel_to_pairs
from evaluation.tensor_parallel import LlamaStacks, apply_tensor_parallel
from parallax.config.layout import Layout
from parallax.config.load import load_config
from parallax.config.models.base import ModelConfig
from parallax.config.models.gpt2 import ParallelConfig
from parallax.config.run import RunConfig
from parallax.errors import ConfigError, run_and_explain
from parallax.model.head import Objective
from parallax.model.noise import row_keys
from parallax.parallel.build import SharedForm, build_native_engine
from parallax.parallel.ledger import LedgerRecorder
from parallax.parallel.mesh import build_mesh
from parallax.parallel.traffic import (
    Key,
    Kind,
    Ledger,
    Phase,
    Traffic,
    find_differences,
    sent_bytes,
    traffic_table,
)
from parallax.runtime.device import Precision

_CPU, _RANKS = torch.device("cpu"), 2
_FLOAT32 = Precision("fp32", None, scales_loss=False, reason="compared")
_ASKED: dict[str, dict[str, float]] = {
    "dual_track": {"copy_reduce": 22, "vocab_split": 15},
    "gpt2_parallel": {"copy_reduce": 3.9, "vocab_split": 3.4},
}
"""Tensor parallelism is to move at least so many times the bytes."""


class Measured(NamedTuple):
    """What the first rank moved in one step."""

    recorded: Ledger
    predicted: Ledger

    @property
    def sent(self) -> int:
        """Bytes."""
        return sum(sent_bytes(self.recorded).values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns 1 where a ledger is not its formula, or moves more than asked."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.ledger",
        description="Bytes that each of two ranks sends in a step of the same stacks: tracks in both forms, and "
        "torch's tensor parallelism.",
    )
    parser.add_argument("--config", default="configs/reference.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a setting")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _compare(load_config(given.config, given.set), Console(width=120)))


def _compare(config: RunConfig, console: Console) -> int:
    if config.model.architecture not in _ASKED:
        known = ", ".join(_ASKED)
        raise ConfigError(f"model.architecture={config.model.architecture}: this compares tracks: {known}")
    measured = measure_step(config)
    for name, found in measured.items():
        console.print(traffic_table(found.recorded, found.predicted, f"{name}: {found.sent / 2**20:.2f} MiB sent"))
    for name, found in measured.items():
        for line in find_differences(found.recorded, found.predicted):
            console.print(f"{name}: {line}", style="red")
    tensor = measured["tensor parallelism"].sent
    wins = True
    for name, times in _ASKED[config.model.architecture].items():
        ratio = tensor / measured[name].sent
        wins = wins and ratio >= times
        console.print(f"{name} sends 1/{ratio:.2f} of the bytes of tensor parallelism; asked: at most 1/{times:g}")
    exact = all(not find_differences(*found) for found in measured.values())
    console.print("Every ledger equals its formula." if exact else "A ledger differs from its formula.")
    return 0 if exact and wins else 1


def measure_step(config: RunConfig) -> dict[str, Measured]:
    """One step of `train.micro_batch` windows in fp32 on two real ranks over gloo, for each contender.

    The tracks' step includes norm and update; tensor parallelism is charged for forward and backward only.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_measure, args=(config, folder), nprocs=_RANKS)  # type: ignore[no-untyped-call]
        measured: dict[str, Measured] = pickle.loads((Path(folder) / "measured").read_bytes())
    return measured


def _measure(rank: int, config: RunConfig, folder: str) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // _RANKS))
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, timedelta(seconds=300), rank=rank, world_size=_RANKS)
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    windows = torch.randint(config.model.vocab_size, shape, generator=generator)
    contenders: dict[str, Callable[[], Measured]] = {
        "copy_reduce": lambda: _tracks(config, windows, "copy_reduce"),
        "vocab_split": lambda: _tracks(config, windows, "vocab_split"),
        "tensor parallelism": lambda: _tensor_parallel(config, windows),
    }
    measured = {name: measure() for name, measure in contenders.items()}
    if rank == 0:
        (Path(folder) / "measured").write_bytes(pickle.dumps(measured))
    dist.destroy_process_group()


def _tracks(config: RunConfig, windows: Tensor, shared: SharedForm) -> Measured:
    engine = build_native_engine(
        config.model,
        mesh=build_mesh(Layout(track=_RANKS, dp_replicate=1, dp_shard=1), _CPU),
        device=_CPU,
        shared=shared,
        precision=_FLOAT32,
        build_optimizer=lambda model: AdamW(model.parameters(), lr=config.optim.lr, fused=True),
        grad_clip=1.0,
    )
    placement = engine.placement
    assert placement is not None
    engine.materialize(lambda model: model.initialize(config.seed, placement.put))
    objective = Objective(chunk_tokens=config.loss.chunk_tokens)
    with engine.record_traffic() as recorder:
        engine.forward_backward([windows], objective, [row_keys(0, range(len(windows)))])
        engine.clip_and_step(config.optim.lr)
    return Measured(recorder.traffic, engine.predict_traffic([windows], objective))


def _tensor_parallel(config: RunConfig, windows: Tensor) -> Measured:
    torch.manual_seed(config.seed)
    mesh = init_device_mesh("cpu", (_RANKS,), mesh_dim_names=("tensor",))
    model = _split_model(config.model, mesh)
    with LedgerRecorder({mesh.get_group().group_name: "tensor"}) as recorder:
        model(windows).backward()
    states = windows[:, :-1].numel() * config.model.hidden_size * torch.float32.itemsize
    executed = config.model.executed_blocks
    predicted = {
        Key(phase, "tensor", Kind.ALL_REDUCE): Traffic(_RANKS, 2 * executed, 2 * executed * states)
        for phase in (Phase.FORWARD, Phase.BACKWARD)
    }
    return Measured(recorder.traffic, predicted)


def _split_model(config: ModelConfig, mesh: DeviceMesh) -> nn.Module:
    """The same blocks over tensor-parallel ranks."""
    if isinstance(config, ParallelConfig):
        pairs = Gpt2Pairs(config)
        apply_tensor_parallel_to_pairs(pairs, mesh)
        return pairs
    stacks = LlamaStacks(as_dual_track(config))
    apply_tensor_parallel(stacks, mesh)
    return stacks


if __name__ == "__main__":
    sys.exit(main())
