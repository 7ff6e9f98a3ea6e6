"""Training speed of one configuration: precisions and compilation side by side, against the matmul floor.

`python -m evaluation.bench_train [CONFIG] [key=value …] [--steps N]`
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from parallax.runtime.threads import limit_spinning

limit_spinning()

import torch
from rich.console import Console
from rich.table import Table

from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.errors import run_and_explain
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.peak import Peak, measure_peak
from parallax.model.head import Objective
from parallax.model.registry import build_model
from parallax.parallel.native import NativeEngine
from parallax.runtime.device import PrecisionName, resolve_device, resolve_precision
from parallax.train.optimizer import build_optimizer


@dataclass
class Variant:
    """One column of the benchmark."""

    precision: PrecisionName
    compiled: bool
    engine: NativeEngine
    peak: Peak
    first_step_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """bf16, or bf16 compiled."""
        return f"{self.precision} compiled" if self.compiled else self.precision


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.bench_train")
    parser.add_argument("config", nargs="?", default="configs/reference.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=5, help="counted steps per variant, interleaved")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _bench(load_config(given.config, given.overrides), given.steps))


def _bench(config: RunConfig, steps: int) -> int:
    device = resolve_device(config.runtime.device)
    console = Console()
    precisions: tuple[PrecisionName, ...] = ("bf16", "fp32")
    variants = [
        _build(config, device, precision, compiled) for precision in precisions for compiled in (False, True)
    ]
    windows = _random_windows(config)
    for variant in variants:
        console.print(f"first step of {variant.name} …")
        variant.first_step_seconds = _time_step(variant.engine, windows)
    for number in range(steps):
        # Interleaved, so that a slow moment of the machine falls on all of them.
        for variant in variants:
            variant.seconds.append(_time_step(variant.engine, windows))
        console.print(f"round {number + 1} of {steps}")
    _print(console, config, variants)
    return 0


def _build(config: RunConfig, device: torch.device, precision: PrecisionName, compiled: bool) -> Variant:
    resolved = resolve_precision(precision, device)
    engine = NativeEngine(
        build_model(config.model, attention_backend=config.runtime.attention_backend, device=device),
        device=device,
        precision=resolved,
        build_optimizer=partial(build_optimizer, config=config.optim),
        grad_clip=config.optim.grad_clip,
        activation_checkpointing=config.train.activation_checkpointing,
        compile_blocks=compiled,
    )
    engine.materialize(lambda model: model.initialize(config.seed))
    return Variant(precision, compiled, engine, measure_peak(device, resolved.autocast_dtype or torch.float32))


def _random_windows(config: RunConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.train.micro_batch, config.model.max_seq_len + 1)
    return torch.randint(config.model.vocab_size, shape, generator=generator)


def _time_step(engine: NativeEngine, windows: torch.Tensor) -> float:
    """Seconds of one forward, backward and update, the device waited for."""
    start = time.perf_counter()
    engine.forward_backward([windows], Objective(), [0])
    engine.clip_and_step(1e-4).item()
    return time.perf_counter() - start


def _print(console: Console, config: RunConfig, variants: Sequence[Variant]) -> None:
    tokens = config.train.micro_batch * config.model.max_seq_len
    flops = tokens * train_flops_per_token(config.model, config.model.max_seq_len)
    table = Table(box=None, pad_edge=False)
    for column in ("variant", "s/step", "tokens/s", "floor s", "of floor", "speed", "first step s"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    base = statistics.median(variants[0].seconds)
    for variant in variants:
        seconds = statistics.median(variant.seconds)
        floor = flops / variant.peak.flops_per_second if variant.peak.flops_per_second else None
        table.add_row(
            variant.name,
            f"{seconds:.3f}",
            f"{tokens / seconds:,.0f}",
            f"{floor:.3f}" if floor else "n/a",
            f"{floor / seconds:.0%}" if floor else "n/a",
            f"{base / seconds:.2f}x",
            f"{variant.first_step_seconds:.1f}",
        )
    console.print(table)
    console.print(
        f"{tokens:,} tokens a step, {flops / 1e9:,.0f} GFLOP; floor: those at the matmul rate measured at start; "
        f"speed: against {variants[0].name}; medians of {len(variants[0].seconds)} interleaved steps"
    )


if __name__ == "__main__":
    sys.exit(main())
