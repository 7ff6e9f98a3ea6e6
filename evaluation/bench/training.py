from collections.abc import Callable
from importlib.util import find_spec

import torch
from rich.console import Console

from evaluation.bench.figures import Figure, Timing, best_of, ratio_of, time_interleaved
from evaluation.bench.ours import Trainer, random_windows
from evaluation.bench.peers import (
    PeerTrainer,
    build_litgpt,
    build_llama,
    litgpt_loss,
    transformers_loss,
)
from evaluation.dual_track import as_dual_track
from parallax.config.run import RunConfig
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.peak import measure_peak
from parallax.runtime.device import PrecisionName, cpu_has_bf16

_GOALS = {"bf16": "1.6x", "fp32": "1.2x"}


def bench_training(config: RunConfig, precisions: list[str], rounds: int, console: Console) -> list[Figure]:
    """Training tokens/s beside transformers' Llama and litgpt's GPT of equal operations a token."""
    figures = []
    for precision in precisions or ["bf16", "fp32"]:
        if precision == "bf16" and not precisions and not cpu_has_bf16():
            figures.append(Figure("training, bf16", "not timed: this CPU has no bf16 instructions", goal="1.6x"))
            continue
        figures += _bench_precision(config, "bf16" if precision == "bf16" else "fp32", rounds, console)
    return figures


def _bench_precision(config: RunConfig, precision: PrecisionName, rounds: int, console: Console) -> list[Figure]:
    dtype = torch.bfloat16 if precision == "bf16" else None
    windows = random_windows(config)
    contenders: dict[str, Callable[[], float]] = {}
    for compiled in (False, True):
        suffix = " compiled" if compiled else " eager"
        ours = Trainer(config, precision, compiled)
        contenders[f"parallax{suffix}"] = lambda ours=ours: ours.step(windows)  # type: ignore[misc]
        llama = build_llama(as_dual_track(config.model))
        peers = [("llama", PeerTrainer(llama, transformers_loss(llama, compiled), config.optim, dtype))]
        if find_spec("litgpt") is not None:
            gpt = build_litgpt(as_dual_track(config.model))
            peers.append(("litgpt", PeerTrainer(gpt, litgpt_loss(gpt, compiled), config.optim, dtype)))
        for name, peer in peers:
            contenders[f"{name}{suffix}"] = lambda peer=peer: peer.step(windows)  # type: ignore[misc]
    console.rule(f"training in {precision}: {config.model.executed_blocks} executed blocks", align="left")
    return _figures(config, precision, time_interleaved(contenders, rounds, console))


def _figures(config: RunConfig, precision: str, timings: dict[str, Timing]) -> list[Figure]:
    tokens = config.train.micro_batch * config.model.max_seq_len
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    peak = measure_peak(torch.device("cpu"), dtype).flops_per_second
    floor = tokens * train_flops_per_token(config.model, config.model.max_seq_len) / peak if peak else None

    def rate(name: str) -> str:
        return f"{tokens / timings[name].median:,.0f} tok/s"

    ours = best_of(timings, "parallax")
    figures = []
    for family, goal in (("llama", _GOALS[precision]), ("litgpt", "1.2x")):
        if any(name.startswith(family) for name in timings):
            peer = best_of(timings, family)
            figures.append(
                Figure(
                    f"training, {precision}",
                    f"{rate(ours)} ({ours.removeprefix('parallax ')})",
                    f"{rate(peer)} ({peer})",
                    ratio_of(timings, peer, ours),
                    goal,
                    f"{floor / timings[ours].median:.0%} of the matmul rate" if floor else "",
                )
            )
    for name, timing in timings.items():
        figures.append(
            Figure(
                f"  {name}",
                f"{timing.median:.2f} s/step, {rate(name)}",
                floor=f"{floor / timing.median:.0%}; first call {timing.first_seconds:.0f} s" if floor else "",
            )
        )
    return figures
