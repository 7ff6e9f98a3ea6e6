"""`python -m evaluation.gpu_proof [--device cuda|cpu] [--output FILE] [--quick] [--patience N] [CHECK …]`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from evaluation.arguments import check_names
from evaluation.gpu_proof.checks import CHECKS, Check
from evaluation.gpu_proof.report import count_verdicts, describe_machine, write_report
from evaluation.gpu_proof.rows import Row, failed
from evaluation.gpu_proof.runner import run_check
from parallax.errors import run_and_explain
from parallax.runtime.device import resolve_device
from parallax.runtime.threads import limit_spinning

_ALL_SECONDS = 480.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the checks, one after the other, and writes the table; 1 if a row failed."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.gpu_proof", description=__doc__)
    names = ", ".join(check.name for check in CHECKS)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {names}; default: all")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu-proof"), help="FILE.md and FILE.json")
    parser.add_argument("--quick", action="store_true", help="small shapes: under three minutes on a CPU")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies every time limit")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: prove(given))


def prove(given: argparse.Namespace) -> int:
    """See `main`.

    Raises:
        BackendError: no such device here.
        ConfigError: an unknown check.
    """
    device = resolve_device(given.device)
    check_names(given.checks, [check.name for check in CHECKS], "CHECK")
    limit_spinning()  # in the environment, which the checks' processes inherit
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)

    machine = describe_machine(device)
    for name, value in machine.items():
        say(f"{name}: {value}")
    results: dict[Check, list[Row]] = {}
    for check in CHECKS:
        if given.checks and check.name not in given.checks:
            continue
        left = _ALL_SECONDS * given.patience - (time.monotonic() - start)
        seconds = min(check.seconds * given.patience, left)
        results[check] = []
        say(f"{check.name}: {check.title}")
        for row in (
            run_check(check, str(device), given.quick, seconds, say) if left > 0 else _no_time(given.patience)
        ):
            results[check].append(row)
            say(f"{check.name}: {row.verdict}: {row.what}: {row.found or row.reason}")
        write_report(given.output, machine, results, time.monotonic() - start)
    counts = count_verdicts(results)
    say(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    say(f"table: {given.output}.md, {given.output}.json")
    return 1 if counts["fail"] else 0


def _no_time(patience: float) -> list[Row]:
    return [failed("the check as a whole", f"no time left; --patience {2 * patience:g} gives all twice as long")]


if __name__ == "__main__":
    sys.exit(main())
