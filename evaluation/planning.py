"""The planner against what real runs hold, each in processes of its own.

    python -m evaluation.planning [--quick] [--only NAME …]

Fourteen configurations of PyTorch's engine and nine of ZeRO against the peak that PyTorch's allocator had given
out, and three of the reference's shape against the growth of a process on the CPU. Prints a Markdown table; the
exit code is 1 if a bound is missed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from evaluation.measured_step import measure_steps, small_run
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.runtime.allocator import keep_freed_memory
from parallax.train.planning.fit import need_of
from parallax.train.planning.rehearsal import plan_rank

WITHIN = 0.05
"""Of the allocator's peak."""
WITHIN_OF_GROWTH = 0.10
"""Of the process's growth."""
REPEATS = 3
"""Two ranks only: gloo sometimes lets go of a buffer late, which can only raise a peak; the lowest counts."""
_SECONDS = 600


@dataclass(frozen=True)
class Case:
    """A configuration that is planned and run."""

    name: str
    ranks: int = 1
    changes: dict[str, Any] = field(default_factory=dict)


def _model(**sizes: int) -> dict[str, Any]:
    """The small model with some of its sizes changed."""
    base = {"num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "hidden_size": 64, "intermediate_size": 172}
    return {**base, "vocab_size": 1000, "max_seq_len": 64, **sizes}


CASES = (
    Case("one pass", changes={"model": _model(num_loops=1)}),
    Case("two passes"),
    Case("three passes", changes={"model": _model(num_loops=3)}),
    Case("one track", changes={"model": _model(num_tracks=1)}),
    Case("checkpointing", changes={"train__activation_checkpointing": True}),
    Case(
        "three passes, checkpointing",
        changes={"model": _model(num_loops=3), "train__activation_checkpointing": True},
    ),
    Case("loss in chunks of 32", changes={"loss__chunk_tokens": 32}),
    Case("loss in one chunk", changes={"loss__chunk_tokens": 4096}),
    Case("micro-batch 2 of 8", changes={"train__micro_batch": 2}),
    Case("DDP over 2", 2),
    Case("FSDP2 over 2", 2, {"parallel__dp_shard": 2}),
    Case("track 2 over 2", 2, {"parallel__track": 2}),
)
_DRAWN = frozenset(random.Random(20261126).sample([case.name for case in CASES], 4))
"""Drawn before the first run."""
_KNOWN_BEFORE = frozenset(("two passes", "track 2 over 2"))
"""Two of the drawn were compared already when the planner was written (`tests/distributed/test_plan_holds.py`)."""
FRESH = (
    Case("three passes, FSDP2 over 2", 2, {"model": _model(num_loops=3), "parallel__dp_shard": 2}),
    Case("checkpointing, track 2 over 2", 2, {"train__activation_checkpointing": True, "parallel__track": 2}),
)
"""Chosen in their place before they were run, after the first run of `CASES`; nothing was tuned in between."""
HELD_OUT = (_DRAWN - _KNOWN_BEFORE) | {case.name for case in FRESH}
"""Not used while the planner was written or tuned."""


def _zero(stage: int, precision: str = "fp32", ranks: int = 2, **changes: Any) -> Case:
    """ZeRO over the data-parallel ranks."""
    tracks = changes.get("parallel__track", 1)
    name = f"ZeRO-{stage} over {ranks // tracks}, {precision}"
    for key, value in changes.items():
        name += f", {key.partition('__')[2].replace('_', ' ')} {value}"
    zero = {"parallel__engine": "deepspeed", "deepspeed__zero_stage": stage, "train__precision": precision}
    return Case(name, ranks, zero | changes)


ZERO = (
    *(_zero(stage, precision) for stage in (1, 2, 3) for precision in ("fp32", "bf16")),
    _zero(2, "bf16", train__micro_batch=2),
    _zero(3, "bf16", train__micro_batch=2),
    _zero(3, "fp32", ranks=4, parallel__track=2),
)
GROWTH = (
    Case("reference, 1 sequence", changes={"train.micro_batch": 1}),
    Case("reference, 2 sequences", changes={"train.micro_batch": 2}),
    Case("reference, 4 sequences, checkpointing", changes={"train.activation_checkpointing": "true"}),
)


@dataclass(frozen=True)
class Comparison:
    """One line of the table; bytes are those of the rank that is furthest off."""

    name: str
    kind: str
    planned: int
    measured: int
    limit: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.planned / self.measured - 1

    @property
    def holds(self) -> bool:
        """Whether it is within the bound."""
        return abs(self.error) <= self.limit


def config_of(case: Case) -> RunConfig:
    """The run of a case of `CASES`."""
    changes = dict(case.changes)
    model = changes.pop("model", {})
    return small_run(case.ranks, **{f"model__{key}": value for key, value in model.items()}, **changes)


def _growth_config(case: Case) -> RunConfig:
    settings = [f"{key}={value}" for key, value in case.changes.items()]
    micro_batch = case.changes.get("train.micro_batch", 4)
    fixed = ["runtime.device=cpu", "train.precision=fp32", f"train.global_batch={micro_batch}"]
    return load_config("configs/reference.yaml", [*fixed, *settings])


def compare_peak(case: Case) -> Comparison:
    """Runs the case's ranks, plans each, and gives the rank that is furthest off."""
    runs = [_run_ranks("peak", case) for _ in range(REPEATS if case.ranks > 1 else 1)]
    rows = []
    for rank in range(case.ranks):
        planned = plan_rank(config_of(case), world_size=case.ranks, rank=rank).peak_bytes
        rows.append(Comparison(case.name, "allocator", planned, min(run[rank] for run in runs), WITHIN))
    return max(rows, key=lambda row: abs(row.error))


def compare_growth(case: Case) -> Comparison:
    """One process of the reference's shape: the growth of its resident set against the plan with its slack."""
    [measured] = _run_ranks("growth", case)
    planned = need_of(plan_rank(_growth_config(case), world_size=1, rank=0), on_gpu=False).total_bytes
    return Comparison(case.name, "process", planned, measured, WITHIN_OF_GROWTH)


def _run_ranks(what: str, case: Case) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "evaluation.planning", "--child", what, case.name, f"{folder}/store"]
        children = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True)
            for rank in range(case.ranks)
        ]
        try:
            answers = [child.communicate(timeout=_SECONDS)[0] for child in children]
        finally:
            for child in children:
                child.kill()
        if any(child.returncode for child in children):
            raise RuntimeError(f"{case.name}: a rank ended with {[child.returncode for child in children]}")
    return [json.loads(answer.splitlines()[-1]) for answer in answers]


def _child(what: str, name: str, store: str, rank: int) -> None:
    case = next(case for case in (CASES + FRESH + ZERO if what == "peak" else GROWTH) if case.name == name)
    torch.set_num_threads(1)
    if what == "growth":
        print(json.dumps(_measured_growth(_growth_config(case))))
        return
    if case.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=case.ranks)
    print(json.dumps(measure_steps(config_of(case), case.ranks).peak_bytes), flush=True)
    if case.ranks > 1:
        dist.destroy_process_group()


def _measured_growth(config: RunConfig) -> int:
    """VmHWM of two steps over VmRSS before the model exists; libraries are loaded by a small run first."""
    from evaluation.measured_step import run_steps

    keep_freed_memory()
    run_steps(small_run(1), steps=2)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    run_steps(config, steps=2)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def table(rows: Iterator[Comparison]) -> bool:
    """Prints each as it is known; whether all hold."""
    print("| configuration | held out | compared with | planned MiB | measured MiB | error | bound |")
    print("|---|---|---|---|---|---|---|")
    holds = True
    for row in rows:
        held = "yes" if row.name in HELD_OUT else ""
        sizes = f"{row.planned / 2**20:,.1f} | {row.measured / 2**20:,.1f}"
        missed = "" if row.holds else " missed"
        print(
            f"| {row.name} | {held} | {row.kind} | {sizes} | {row.error:+.1%} | {row.limit:.0%}{missed} |",
            flush=True,
        )
        holds = holds and row.holds
    return holds


def main() -> int:
    """The table on stdout; 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="without the reference's shape")
    parser.add_argument("--only", action="append", help="a configuration by name")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, name, store, rank = options.child
        _child(what, name, store, int(rank))
        return 0
    wanted = options.only or [case.name for case in CASES + FRESH + ZERO + (() if options.quick else GROWTH)]
    peaks = (compare_peak(case) for case in CASES + FRESH + ZERO if case.name in wanted)
    growths = (compare_growth(case) for case in GROWTH if case.name in wanted)
    return 0 if table(chain(peaks, growths)) else 1


if __name__ == "__main__":
    sys.exit(main())
