"""`python -m evaluation.bench [PART …] [--config FILE] [--rounds N] [--precision P] [--set key=value]`."""

import argparse
import sys
from collections.abc import Callable, Sequence

from parallax.runtime.threads import limit_spinning

limit_spinning()

from rich.console import Console

from evaluation.arguments import check_names
from evaluation.bench.figures import Figure, print_figures
from evaluation.bench.generation import bench_generation
from evaluation.bench.loading import bench_loading
from evaluation.bench.memory import bench_memory
from evaluation.bench.training import bench_training
from parallax.config.load import load_config
from parallax.errors import run_and_explain
from parallax.runtime.allocator import keep_freed_memory

_PARTS = ("training", "generation", "memory", "loading")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what was asked for and prints one table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.bench", description="Speed beside peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; default: all")
    parser.add_argument("--config", default="configs/reference.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="change a setting")
    parser.add_argument("--rounds", type=int, default=3, help="counted calls of each contender, interleaved")
    parser.add_argument(
        "--precision", action="append", default=[], choices=["bf16", "fp32"], help="default: what the CPU has"
    )
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens written by the generation part")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _bench(given))


def _bench(given: argparse.Namespace) -> int:
    check_names(given.parts, _PARTS, "PART")
    config = load_config(given.config, given.set)
    # As a run does; here it helps the peers as well. MALLOC_TRIM_THRESHOLD_=131072 in the environment undoes it.
    keep_freed_memory()
    console = Console()
    run: dict[str, Callable[[], list[Figure]]] = {
        "training": lambda: bench_training(config, given.precision, given.rounds, console),
        "generation": lambda: bench_generation(config, given.new_tokens, given.rounds, console),
        "memory": lambda: bench_memory(given.config, given.set, console),
        "loading": lambda: bench_loading(config, given.rounds, console),
    }
    figures = [figure for part in _PARTS if part in (given.parts or _PARTS) for figure in run[part]()]
    title = f"{given.config}: medians of {given.rounds} interleaved calls; ratios round by round, in this run"
    print_figures(console, title, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
