from collections.abc import Iterator
from dataclasses import replace

import torch

from evaluation.gpu_proof.rows import Row, impossible, measured_peak, within
from evaluation.gpu_proof.setting import Setting
from evaluation.gpu_proof.small_model import build_engine, forward_backward, random_windows
from parallax.config.load import load_config
from parallax.train.planning.fit import MIB, memory_of, need_of
from parallax.train.planning.rehearsal import plan_rank

LIMIT_BYTES = 6 * 2**30
LOWEST, HIGHEST = 0.85, 1.1
"""Measured tensors over planned ones."""
_STEPS = 3


def check_rtx3050(setting: Setting) -> Iterator[Row]:
    """Steps of `configs/rtx3050.yaml` under a memory fraction of 6 GiB, and their peak against the plan."""
    config = load_config("configs/rtx3050.yaml")
    planned = plan_rank(config, world_size=1, rank=0)
    need = need_of(planned, on_gpu=True)
    yield within("plan of configs/rtx3050.yaml, MiB", need.total_bytes / MIB, 0, LIMIT_BYTES / MIB)
    total = memory_of(setting.device)
    if total is None or total < LIMIT_BYTES:
        yield impossible("steps within 6 GiB", "needs a CUDA card of 6 GiB or more")
        return
    torch.cuda.set_per_process_memory_fraction(LIMIT_BYTES / total, setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    engine = build_engine(config.model, setting.device, "fp16")
    for number in range(_STEPS):
        forward_backward(engine, random_windows(config.model, config.train.micro_batch, seed=number))
        engine.clip_and_step(1e-3)
    setting.synchronize()
    peak = torch.cuda.max_memory_allocated(setting.device)
    reserved = torch.cuda.max_memory_reserved(setting.device)
    share = within(
        "measured tensors over planned", peak / planned.peak_bytes, LOWEST, HIGHEST, f"{peak / MIB:,.0f} MiB"
    )
    yield replace(share, measured=measured_peak(config, peak))
    yield within("reserved by the allocator, MiB", reserved / MIB, 0, LIMIT_BYTES / MIB)
