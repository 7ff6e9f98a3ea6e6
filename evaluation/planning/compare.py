"""One case: its ranks in processes of their own, and the plan beside them."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from evaluation.measured_step import measure_steps, run_steps, small_run
from evaluation.planning.cases import CASES, FRESH, GROWTH, ZERO, Case, config_of, growth_config
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
    planned = need_of(plan_rank(growth_config(case), world_size=1, rank=0), on_gpu=False).total_bytes
    return Comparison(case.name, "process", planned, measured, WITHIN_OF_GROWTH)


def _run_ranks(what: str, case: Case) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "evaluation.planning", "--child", what, case.name, f"{folder}/store"]
        environment = os.environ | case.environment
        children = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, env=environment)
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


def run_child(what: str, name: str, store: str, rank: int) -> None:
    """What a process of its own does: one rank of a case, its figure as JSON on stdout."""
    case = next(case for case in (CASES + FRESH + ZERO if what == "peak" else GROWTH) if case.name == name)
    torch.set_num_threads(1)
    if what == "growth":
        print(json.dumps(_measured_growth(growth_config(case))))
        return
    if case.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=case.ranks)
    print(json.dumps(measure_steps(config_of(case), case.ranks).peak_bytes), flush=True)
    if case.ranks > 1:
        dist.destroy_process_group()


def _measured_growth(config: RunConfig) -> int:
    """VmHWM of two steps over VmRSS before the model exists; libraries are loaded by a small run first."""
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
