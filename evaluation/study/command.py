import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from evaluation.compare.command import compare_runs
from evaluation.study.arms import resolve
from evaluation.study.plan import PlannedRun
from evaluation.study.power import power_statement
from evaluation.study.report import Findings, write_report
from evaluation.study.runner import LocalRunner, num_cores
from evaluation.study.show import StudyProgress, arm_lines, tuning_lines
from evaluation.study.slurm import FROM_JOB, SlurmStage, check_options
from evaluation.study.status import Stand, Status
from evaluation.study.study import Study, open_study
from evaluation.study.tuning import tune
from launch.parser import Parser
from parallax.errors import ConfigError, RunError, run_and_explain
from parallax.runtime.lock import RunLock


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m evaluation.study FILE …`; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run_and_explain(lambda: _run(words))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m evaluation.study",
        description="Carry out a designed study: tune, train every arm on every seed, compare. "
        "The same command goes on where it was stopped.",
        epilog="With --via slurm, options of python -m launch follow behind --: -- --time 2:00:00 --at-once 8",
    )
    parser.add_argument("file", help="for example configs/studies/swap.yaml")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the study; runs/studies/NAME unless stated"
    )
    parser.add_argument("--via", choices=("local", "slurm"), default="local")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="local: runs at a time; one a core with runtime.device=cpu"
    )
    parser.add_argument(
        "--nice", type=int, default=10, metavar="N", help="local: added to the priority number of each"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show arms, costs, power and runs, and start nothing"
    )
    parser.add_argument(FROM_JOB, action="store_true", help=argparse.SUPPRESS)
    own, behind = (
        (words, []) if "--" not in words else (words[: words.index("--")], words[words.index("--") + 1 :])
    )
    given = parser.parse_args(own)
    if behind and given.via != "slurm":
        raise ConfigError(f"{behind[0]} stands behind --, which is for --via slurm")
    if given.jobs is not None and given.jobs < 1:
        raise ConfigError(f"--jobs {given.jobs}: expected 1 or more")
    given.behind = check_options(behind)
    return given


def _run(words: Sequence[str]) -> int:
    given = _parse(words)
    study = open_study(Path(given.file), given.output)
    console = Console(highlight=False)
    if given.dry_run:
        return _show(study, given, console)
    with RunLock(study.folder, setting="--output"):
        study = study.kept(Path(given.file))
        findings = _carry_out(
            study,
            given,
            shlex.join(["python", "-m", "evaluation.study", *(word for word in words if word != FROM_JOB)]),
            console,
        )
        return 0 if findings is None else _conclude(study, findings, console)


def _carry_out(study: Study, given: argparse.Namespace, command: str, console: Console) -> Findings | None:
    """Both stages; None: Slurm is at it."""
    tuning = _stage(study, given, "tuning", study.tuning(), console)
    if tuning is None:
        return None
    tuned = tune(tuning)
    for line in tuning_lines(tuned):
        console.print(line, soft_wrap=True)
    runs = _stage(study, given, "seeds", study.seeds(tuned), console)
    if runs is None:
        return None
    for run, status in runs.items():
        if status.stand is Stand.DIVERGED:
            raise RunError(
                f"{run.folder.name} diverged at the rate that was best on the tuning seeds: {status.error}; "
                f"tune on more seeds (tuning.seeds)"
            )
    return Findings(study.design, study.arms, tuned, tuning, runs, command)


def _stage(
    study: Study, given: argparse.Namespace, stage: str, runs: Sequence[PlannedRun], console: Console
) -> Mapping[PlannedRun, Status] | None:
    if given.via == "slurm":
        return _slurm(study, given).run(stage, runs)
    jobs = given.jobs or (num_cores() if runs[0].config.runtime.device == "cpu" else 1)
    with StudyProgress(console, stage, runs) as show:
        try:
            runner = LocalRunner(jobs, 3600 * study.design.hours_per_run, given.nice, show)
            return runner.run(runs)
        except KeyboardInterrupt:
            console.print(
                f"stopped  all that ran has saved; the same command goes on in {study.folder}", soft_wrap=True
            )
            raise


def _slurm(study: Study, given: argparse.Namespace) -> SlurmStage:
    again = ["evaluation.study", given.file, "--output", str(study.folder), "--via", "slurm", FROM_JOB]
    return SlurmStage(
        study.name, study.folder, given.behind, (*again, "--", *given.behind), from_job=given.from_job
    )


def _conclude(study: Study, findings: Findings, console: Console) -> int:
    """The comparison and the study's own page."""
    design = study.design
    folders = {arm: [run.folder for run in findings.runs if run.arm == arm] for arm in study.arms}
    planned = [tuple(resolve(study.arms, name).name for name in pair) for pair in design.comparisons]
    comparison = compare_runs(
        folders,
        baseline=resolve(study.arms, design.reference).name,
        by=design.by,
        output=study.folder / "comparison",
        title=design.title,
        planned=[(first, second) for first, second in planned],
    )
    verdicts = [str(verdict) for verdict in comparison.verdicts]
    write_report(findings, study.folder, verdicts)
    for verdict in verdicts:
        console.print(f"verdict  {verdict}", soft_wrap=True)
    console.print(f"report   {study.folder / 'study.md'} and {study.folder / 'comparison'}", soft_wrap=True)
    return 0


def _show(study: Study, given: argparse.Namespace, console: Console) -> int:
    design, tuning = study.design, study.tuning()
    rate = design.tuning.rates[0]
    seeds = study.planner.seeds(design, study.arms.values(), dict.fromkeys(study.arms, rate))
    more = len(study.arms) * len(set(design.seeds) - set(design.tuning.seeds))
    flops = sum(run.flops for run in tuning)
    flops += sum(run.flops for run in seeds if run.seed not in design.tuning.seeds)
    console.print(f"study    {design.title}: {len(study.arms)} arms")
    for line in arm_lines(design, study.arms):
        console.print(line, soft_wrap=True)
    for sentence in power_statement(design.power, len(design.seeds), len(design.comparisons)):
        console.print(f"power    {sentence}", soft_wrap=True)
    console.print(f"runs     {len(tuning)} to tune, then {more} more at the tuned rates; {flops:.3g} FLOPs in all")
    console.print(f"folder   {study.folder}")
    if given.via == "slurm":
        _slurm(study, given).submit("tuning", tuning, dry_run=True)
        console.print(
            f"then     an array of {more} runs, seeds {', '.join(map(str, design.seeds))}, at the tuned rates"
        )
        return 0
    for run in tuning:
        console.print(f"run      {run.folder.name}", highlight=False)
    console.print("next     nothing was started; the same without --dry-run starts it")
    return 0
