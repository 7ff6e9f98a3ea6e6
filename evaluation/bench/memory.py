import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from evaluation.bench.figures import Figure
from evaluation.dual_track import as_dual_track

_TIMEOUT_SECONDS = 1200


def bench_memory(config_path: str, overrides: list[str], console: Console) -> list[Figure]:
    """Peak memory of a training step in fp32, eager, each contender in a process of its own."""
    console.rule("memory: one training step a process", align="left")
    ours, llama = (_measure(name, config_path, overrides) for name in ("parallax", "llama"))
    figures = []
    for key, what in (("peak", "peak of a step"), ("states", "  states"), ("activations", "  activations")):
        goal = "0.7x" if key == "peak" else ""
        mine, theirs = f"{ours[key] / 2**20:,.0f} MiB", f"{llama[key] / 2**20:,.0f} MiB (llama)"
        figures.append(Figure(f"memory, {what.strip()}", mine, theirs, ours[key] / llama[key], goal))
    return figures


def _measure(name: str, config_path: str, overrides: list[str]) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.bench.memory", name, config_path, *overrides],
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _highest_resident_bytes() -> int:
    """This program's own peak, as Linux counts it: `ru_maxrss` would begin with that of the parent process."""
    status = Path("/proc/self/status").read_text()
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) * 1024


def _main(name: str, config_path: str, overrides: list[str]) -> None:
    """Prints as JSON: states = weights, gradients and moments; peak = resident growth over an empty process."""
    import torch

    from evaluation.bench.ours import Trainer, random_windows
    from evaluation.bench.peers import PeerTrainer, build_llama, transformers_loss
    from parallax.config.load import load_config
    from parallax.metrics.memory import memory_usage
    from parallax.runtime.allocator import keep_freed_memory

    keep_freed_memory()

    config = load_config(config_path, overrides)
    device, windows = torch.device("cpu"), random_windows(config)
    if name == "llama":
        import transformers.models.llama.modeling_llama  # noqa: F401  # loaded before, so that code is not counted

    # A backward of something small, so that what torch itself sets up is not counted either.
    torch.nn.Linear(8, 8)(torch.ones(8, 8)).sum().backward()
    before = memory_usage(device).current_bytes
    trainer: Trainer | PeerTrainer
    if name == "parallax":
        trainer = Trainer(config, "fp32", compiled=False)
        model: torch.nn.Module = trainer.engine.model
    else:
        model = build_llama(as_dual_track(config.model))
        trainer = PeerTrainer(model, transformers_loss(model, compiled=False), config.optim, None)
    for _ in range(2):
        trainer.step(windows)
    peak = _highest_resident_bytes() - before
    states = sum(4 * 4 * parameter.numel() for parameter in model.parameters())
    print(json.dumps({"peak": peak, "states": states, "activations": peak - states}))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], sys.argv[3:])
