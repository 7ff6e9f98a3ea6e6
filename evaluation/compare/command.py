import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from evaluation.compare.arms import Arm, group, make_arm
from evaluation.compare.beside import sections_beside
from evaluation.compare.comparison import Comparison, baseline_of
from evaluation.compare.curves import AXES, Axis
from evaluation.compare.runs import load_experiment, load_runs
from evaluation.compare.tables import all_tables
from evaluation.compare.tracking import log_comparison
from evaluation.compare.verdict import judge
from evaluation.compare.write import write_comparison
from evaluation.output import print_tables
from launch.parser import Parser
from parallax.errors import run_and_explain


def compare_runs(
    arms: Mapping[str, Sequence[Path]],
    *,
    baseline: str | None,
    by: Axis,
    output: Path,
    title: str,
    planned: Sequence[tuple[str, str]] | None = None,
) -> Comparison:
    """Compares arms of run folders and writes the reports.

    Args:
        arms: name -> run folders, one a seed.
        baseline: that the others are compared with where no pairs are planned; None: the first.
        by: what curves are drawn over and quality is set against.
        output: folder of the reports.
        title: of the report.
        planned: the pairs (first, second) that were announced; None: every arm against the baseline.

    Raises:
        RunError: runs that cannot be read or compared, or no such arm.
    """
    loaded = load_runs([path for paths in arms.values() for path in paths])
    runs = {run.folder: run for run in loaded}
    made = [make_arm(name, [runs[path] for path in paths]) for name, paths in arms.items()]
    comparison = _compared(made, baseline, by, title, planned)
    write_comparison(comparison, output)
    return comparison


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m evaluation.compare …`; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_and_explain(lambda: _run(_parse(words)))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m evaluation.compare", description="Do runs differ, and by how much?")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--experiment", metavar="NAME", help="finished runs of an MLflow experiment")
    which.add_argument("--runs", nargs="+", metavar="RUN", help="run folders, or MLflow's ids of runs")
    parser.add_argument("--uri", help="MLflow store; MLFLOW_TRACKING_URI or runs/mlflow.db unless stated")
    parser.add_argument("--by", choices=AXES, default="tokens", help="what quality is set against")
    parser.add_argument("--baseline", metavar="RUN", help="a run or arm; the first unless stated")
    parser.add_argument(
        "--with",
        nargs="+",
        type=Path,
        default=[],
        dest="beside",
        metavar="DIR",
        help="folders that evaluation.tracks and evaluation.tasks wrote; those in run folders are found",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for HTML, CSV, JSON and pictures")
    return parser.parse_args(words)


def _run(given: argparse.Namespace) -> int:
    runs = load_runs(given.runs, given.uri) if given.runs else load_experiment(given.experiment, given.uri)
    title = f"Experiment {given.experiment}" if given.experiment else "Comparison"
    comparison = _compared(group(runs), given.baseline, given.by, title, None, given.beside)
    console = Console(highlight=False)
    print_tables(console, all_tables(comparison.data))
    console.print()
    for verdict in comparison.verdicts:
        console.print(str(verdict), soft_wrap=True)
    console.print(f"SHA-256 of what is drawn: {comparison.digest}", soft_wrap=True)
    if given.output is None:
        console.print("next     the same with --output DIR writes a report to send")
        return 0
    write_comparison(comparison, given.output)
    console.print(f"report   {given.output / 'report.html'}")
    for section in comparison.sections:
        console.print(f"with     {section.page}", soft_wrap=True)
    if given.experiment:
        log_comparison(comparison, given.output, given.experiment, given.uri)
        console.print(f"mlflow   run `comparison` of {given.experiment} has it")
    return 0


def _compared(
    arms: Sequence[Arm],
    baseline: str | None,
    by: Axis,
    title: str,
    planned: Sequence[tuple[str, str]] | None,
    beside: Sequence[Path] = (),
) -> Comparison:
    chosen = baseline_of(arms, baseline)
    pairs = planned if planned is not None else [(arm.name, chosen) for arm in arms if arm.name != chosen]
    sections = sections_beside([run for arm in arms for run in arm.runs], beside)
    return Comparison(title, by, tuple(arms), chosen, tuple(judge(arms, pairs)), sections)
