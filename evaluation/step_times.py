"""Estimated seconds of a step beside real ones, over processes on the CPU.

    python -m evaluation.step_times [--steps N]

The rate is calibrated by the first row, one process alone, and the link by a timed sum over two ranks; the other
rows are estimates of `parallax plan --search` for this machine. Prints a Markdown table and claims no bound.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from evaluation.measured_step import small_run, timed_steps
from parallax.config.layout import resolve_layout
from parallax.config.run import RunConfig
from parallax.metrics.flops import train_flops_per_token
from parallax.train.planning.step_time import Machine, estimate_seconds

_SECONDS = 300
_SUM_ELEMENTS = 1 << 22
_MODEL = {
    "model__num_layers": 4,
    "model__num_heads": 4,
    "model__num_kv_heads": 4,
    "model__hidden_size": 256,
    "model__intermediate_size": 683,
    "model__vocab_size": 4000,
    "model__max_seq_len": 128,
}


@dataclass(frozen=True)
class Case:
    """A layout that is estimated and timed."""

    name: str
    ranks: int
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self) -> RunConfig:
        """The same global batch in every case."""
        batch: dict[str, Any] = {"train__global_batch": 16, "train__micro_batch": 8}
        return small_run(self.ranks, **_MODEL, **{**batch, **self.changes})


CASES = (
    Case("one process", 1),
    Case("DDP over 2", 2),
    Case("FSDP2 over 2", 2, {"parallel__dp_shard": 2}),
    Case("track 2 over 2", 2, {"parallel__track": 2}),
    Case("checkpointing", 1, {"train__activation_checkpointing": True}),
)


def calibrated(seconds: float, link_bandwidth: float) -> Machine:
    """The machine on which the first case takes `seconds`."""
    config = CASES[0].config()
    layout = resolve_layout(config.parallel, config.model.num_tracks, 1)
    tokens = config.train.global_batch * config.model.max_seq_len
    flops = tokens * train_flops_per_token(config.model, config.model.max_seq_len)
    # Beside the products stands what the estimate has for starting kernels.
    beside = estimate_seconds(config, layout, Machine(flops=float("inf"), utilisation=1.0))
    return Machine(flops / max(seconds - beside, 1e-9), 1.0, link_bandwidth, node_bandwidth=link_bandwidth)


def estimated(case: Case, machine: Machine) -> float:
    """Seconds of an optimizer step."""
    config = case.config()
    return estimate_seconds(config, resolve_layout(config.parallel, config.model.num_tracks, case.ranks), machine)


def _timed(case: Case, steps: int) -> tuple[float, float | None]:
    """Median seconds of a step, of the slowest rank; bytes a second of a sum over the ranks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "evaluation.step_times", "--steps", str(steps), "--child", case.name]
        children = [
            subprocess.Popen([*command, f"{folder}/store", str(rank)], stdout=subprocess.PIPE, text=True)
            for rank in range(case.ranks)
        ]
        try:
            answers = [child.communicate(timeout=_SECONDS)[0] for child in children]
        finally:
            for child in children:
                child.kill()
        if any(child.returncode for child in children):
            raise RuntimeError(f"{case.name}: a rank ended with {[child.returncode for child in children]}")
    found = [json.loads(answer.splitlines()[-1]) for answer in answers]
    return max(each["seconds"] for each in found), found[0]["bandwidth"]


def _child(name: str, store: str, rank: int, steps: int) -> None:
    case = next(case for case in CASES if case.name == name)
    torch.set_num_threads(1)
    bandwidth = None
    if case.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=case.ranks)
        bandwidth = _sum_bandwidth(case.ranks)
    seconds = statistics.median(timed_steps(case.config(), case.ranks, steps))
    print(json.dumps({"seconds": seconds, "bandwidth": bandwidth}), flush=True)
    if case.ranks > 1:
        dist.destroy_process_group()


def _sum_bandwidth(ranks: int) -> float:
    numbers = torch.ones(_SUM_ELEMENTS)
    times = []
    for _ in range(5):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        times.append(time.perf_counter() - start)
    return 2 * (ranks - 1) / ranks * numbers.nbytes / min(times)


def main() -> int:
    """The table on stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, store, rank = options.child
        _child(name, store, int(rank), options.steps)
        return 0
    measured = {case.name: _timed(case, options.steps) for case in CASES}
    bandwidth = min(found for _, found in measured.values() if found is not None)
    machine = calibrated(measured[CASES[0].name][0], bandwidth)
    print(
        f"{machine.flops / 1e9:,.1f} GFLOP/s a rank (calibrated), {bandwidth / 1e9:.2f} GB/s a rank (measured)\n"
    )
    print("| layout | ranks | estimated s | measured s | error |\n|---|---|---|---|---|")
    for case in CASES:
        estimate, (seconds, _) = estimated(case, machine), measured[case.name]
        note = "calibrates" if case is CASES[0] else f"{estimate / seconds - 1:+.0%}"
        print(f"| {case.name} | {case.ranks} | {estimate:.3f} | {seconds:.3f} | {note} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
