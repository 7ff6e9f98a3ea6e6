"""`python -m evaluation.bench.zoo [--size small] [--precision bf16] [--rounds N] [--only NAME] [--form FORM]`."""

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from parallax.runtime.threads import limit_spinning

limit_spinning()

import torch
from rich.console import Console
from rich.table import Table

from evaluation.arguments import check_names
from evaluation.bench.figures import Timing, best_of, ratio_of, time_interleaved
from evaluation.bench.ours import Trainer, random_windows
from evaluation.bench.peers import PeerTrainer, build_gpt2, transformers_loss
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.errors import run_and_explain
from parallax.metrics.flops import train_flops_per_token
from parallax.metrics.peak import measure_peak
from parallax.runtime.allocator import keep_freed_memory
from parallax.runtime.device import PrecisionName

_BASELINE = "gpt2"
_VARIANTS: dict[str, tuple[str, ...]] = {
    _BASELINE: (),
    "drift": ("model.architecture=gpt2_drift_diffusion", "model.diffusion_std=0"),
    "drift-diffusion": ("model.architecture=gpt2_drift_diffusion",),
    "parallel-mean": ("model.architecture=gpt2_parallel",),
    "parallel-concat": ("model.architecture=gpt2_parallel", "model.merge=concat"),
    "duo": ("model.architecture=gpt2_duo_predict",),
    "duo-strict": ("model.architecture=gpt2_duo_predict_strict",),
    "rotating-lr-norm": ("model.architecture=gpt2_rotating_head", "model.use_norm=true"),
    "rotating-gp": ("model.architecture=gpt2_rotating_head", "model.frequencies=GP"),
}
_FORMS = {"eager": False, "compiled": True}


@dataclass(frozen=True)
class _Task:
    precision: PrecisionName
    rounds: int
    baseline: RunConfig
    variants: Mapping[str, RunConfig]


def main(arguments: Sequence[str] | None = None) -> int:
    """Times training steps of GPT-2 beside transformers', and of its variants beside GPT-2."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.bench.zoo", description=main.__doc__)
    parser.add_argument("--size", default="small", choices=["test", "small", "medium"])
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each contender, interleaved")
    parser.add_argument(
        "--only", action="append", default=[], metavar="VARIANT", help=f"of {', '.join(_VARIANTS)}"
    )
    parser.add_argument("--form", action="append", choices=list(_FORMS), help="of the variants' table; both")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a setting")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _bench(given))


def _bench(given: argparse.Namespace) -> int:
    check_names(given.only, _VARIANTS, "--only")
    console = Console()
    keep_freed_memory()
    path = f"configs/zoo/{_BASELINE}-{given.size}.yaml"
    sizes = ("train.micro_batch=4", "model.max_seq_len=512", *given.set)
    configs = {
        name: load_config(path, (*overrides, *sizes))
        for name, overrides in _VARIANTS.items()
        if name in (_BASELINE, *(given.only or _VARIANTS))
    }
    task = _Task(given.precision, given.rounds, configs.pop(_BASELINE), configs)
    if _BASELINE in (given.only or _VARIANTS):
        _print_peer(task, console)
    if configs:
        _print_variants(task, given.form or list(_FORMS), console)
    return 0


def _step(config: RunConfig, task: _Task, form: str) -> Callable[[], float]:
    return partial(Trainer(config, task.precision, _FORMS[form]).step, random_windows(config))


def _print_peer(task: _Task, console: Console) -> None:
    """GPT-2 beside transformers' GPT-2 of the same shape, each in the better of its two forms."""
    config = task.baseline
    contenders = {f"{_BASELINE} {form}": _step(config, task, form) for form in _FORMS}
    dtype = torch.bfloat16 if task.precision == "bf16" else None
    for form, compiled in _FORMS.items():
        peer = build_gpt2(config.model)
        trainer = PeerTrainer(peer, transformers_loss(peer, compiled), config.optim, dtype)
        contenders[f"transformers {form}"] = partial(trainer.step, random_windows(config))
    timings = time_interleaved(contenders, task.rounds, console)
    tokens = config.train.micro_batch * config.model.max_seq_len
    peak = measure_peak(torch.device("cpu"), dtype or torch.float32).flops_per_second
    floor = tokens * train_flops_per_token(config.model, config.model.max_seq_len) / peak if peak else None
    table = Table(title=f"GPT-2 in {task.precision}, {tokens} tokens a step", title_justify="left", box=None)
    for column in ("", "s/step", "tok/s", "of the matmul rate"):
        table.add_column(column, justify="right" if column else "left")
    for name, timing in timings.items():
        share = f"{floor / timing.median:.0%}" if floor else "n/a"
        table.add_row(name, f"{timing.median:.2f}", f"{tokens / timing.median:,.0f}", share)
    console.print(table)
    ours, theirs = best_of(timings, _BASELINE), best_of(timings, "transformers")
    console.print(f"{ours} is {ratio_of(timings, theirs, ours):.2f}x as fast as {theirs}; asked: 1.3x in bf16")


def _print_variants(task: _Task, forms: Sequence[str], console: Console) -> None:
    """What each variant takes beside GPT-2, and what its operations explain of it."""
    table = Table(title=f"variants in {task.precision}, beside {_BASELINE}", title_justify="left", box=None)
    for column in ("variant", "form", "s/step", "time", "FLOPs", "time over FLOPs"):
        table.add_column(column, justify="left" if column in ("variant", "form") else "right")
    for form in forms:
        baseline = _step(task.baseline, task, form)
        for name, config in task.variants.items():
            # One variant at a time: all together would not fit in memory.
            contenders = {f"{_BASELINE} {form}": baseline, f"{name} {form}": _step(config, task, form)}
            timings = time_interleaved(contenders, task.rounds, console)
            table.add_row(name, form, *_ratios(task.baseline, config, timings))
            del contenders
            gc.collect()
    console.print(table)


def _ratios(baseline: RunConfig, config: RunConfig, timings: Mapping[str, Timing]) -> list[str]:
    usual, own = timings
    taken = ratio_of(timings, own, usual)
    least, operations = (train_flops_per_token(c.model, c.model.max_seq_len) for c in (baseline, config))
    explained = operations / least
    return [f"{timings[own].median:.2f}", f"{taken:.2f}x", f"{explained:.2f}x", f"{taken / explained:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
