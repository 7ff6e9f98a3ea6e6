import argparse
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from launch.machine import check_deepspeed
from launch.place import Place, parse_place
from launch.plan import Plan, make_plan
from launch.request import Request
from launch.show import describe_parts
from launch.slurm.cluster import check_acceptance, check_cluster, check_slurm, submit_script
from launch.slurm.compare import write_comparison_job
from launch.slurm.job import Job, resource_lines, site_lines
from launch.slurm.launcher import Slurm
from launch.slurm.limits import format_time
from launch.slurm.options import build_job, profile_of
from launch.slurm.record import Submission, SubmittedJob, shown
from launch.slurm.sweep import own_value, parse_sweep, read_members, split_sweep, sweep_lines
from launch.slurm.template import Template, read_template
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.errors import BackendError, ConfigError, ParallaxError

_LATE_SECONDS = 60
"""How much earlier than asked for Slurm may send a signal."""


@dataclass(frozen=True)
class Prepared:
    """Everything about a job before anything is written."""

    job: Job
    plan: Plan
    run_name: str
    text: str
    """The batch script."""
    config: str
    """The configuration file as given."""
    overrides: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the batch script: a copy of the configuration, so that a job that waits does not change."""
        return (str(self.job.folder / Path(self.config).name), *self.overrides)

    @property
    def record(self) -> Submission:
        """What is kept of it."""
        job = self.job
        folders = [own_value(member, "run.dir") for member in self.members]
        runs = tuple(own or f"{job.run}/{number}" for number, own in enumerate(folders)) or (job.run,)
        return Submission(
            job.name, str(job.folder), str(job.directory), self.arguments, runs, self.members, job.at_once
        )


def launch_by_slurm(given: argparse.Namespace) -> int:
    """`python -m launch CONFIG --via slurm …`: plans, renders, asks Slurm, submits; returns the exit code."""
    prepared = prepare(given)
    problem = _find_problem(prepared)
    if not given.dry_run and problem is not None:
        raise problem
    # The plan is shown once Slurm has taken it: a refusal is one line and no more.
    record = None if given.dry_run else _submit(prepared)
    for line in _describe(prepared):
        print(line)
    if record is None:
        for line in (*resource_lines(prepared.job), *site_lines(prepared.job)):
            print(f"script   {line}")
        if problem is not None:
            print(f"warning  would not be submitted here: {problem}")
        print("next     nothing was submitted; the same without --dry-run submits it")
        return 0
    for line in _describe_next(record):
        print(line)
    return 0


def prepare(given: argparse.Namespace) -> Prepared:
    """Plans and renders a job; nothing is written, and Slurm is not asked.

    Raises:
        ParallaxError: what was asked for makes no sense.
    """
    for name in ("master", "accelerate_config"):
        if getattr(given, name) is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is not for --via slurm, whose job finds its own; leave it out")
    varied, single = split_sweep(given.sweep or ())
    given.overrides = [*given.overrides, *single]
    if given.sweep and given.members:
        raise ConfigError("--sweep and --members both say what the members are; leave one out")
    members = parse_sweep(varied, given.overrides) if given.sweep else []
    members = read_members(given.members) if given.members else members
    config = load_config(given.config, given.overrides)
    profile, template = profile_of(given), read_template(given.template)
    job = build_job(given, profile, config, len(members), _stamp())
    while job.folder.exists():  # another submission of this second
        time.sleep(0.2)
        job = build_job(given, profile, config, len(members), _stamp())
    _check_time(job, template)
    plan = _plan(given, job, config)
    for number, member in enumerate(members):
        try:
            _plan(given, job, load_config(given.config, (*given.overrides, *member)))
        except ParallaxError as error:
            option = "--members" if given.members else "--sweep"
            raise ConfigError(f"{option} member {number} ({' '.join(member)}): {error}") from None
    # The threads of a rank follow from the processors that it gets, which the script sees.
    threads = {"OMP_NUM_THREADS"}
    added = {name: value for name, value in plan.environment.items() if name not in threads}
    job = replace(job, environment={**added, **job.environment})
    # The script adds run.dir itself, from PARALLAX_RUN; one among the arguments would be every member's.
    overrides = tuple(text for text in given.overrides if not text.startswith("run.dir="))
    text = template.fill(resource_lines(job), site_lines(job))
    return Prepared(job, plan, config.run.name, text, given.config, overrides, tuple(members))


def _stamp() -> str:
    return time.strftime("%Y%m%d-%H%M%S")


def _check_time(job: Job, template: Template) -> None:
    least = template.signal_seconds + _LATE_SECONDS
    if job.seconds <= least:
        raise ConfigError(
            f"--time {format_time(job.seconds)}: the job is told to save up to {least} s before its end; "
            f"ask for more, for example {format_time(least + 600)}"
        )


def _plan(given: argparse.Namespace, job: Job, config: RunConfig) -> Plan:
    # The numbers are checked as for any launcher; where the ranks meet is for the job to find.
    parse_place(job.nodes, job.ranks_per_node, given.node_rank, "job")
    request = Request(
        config=config,
        arguments=(given.config, *given.overrides),
        place=Place(job.nodes, job.ranks_per_node),
        python=job.python,
        gpus=job.ranks_per_node if job.on_gpus else 0,
        environment=os.environ,
    )
    return make_plan("slurm", Slurm(), request)


def _find_problem(prepared: Prepared) -> ParallaxError | None:
    """What keeps this machine and its cluster from taking the job, as far as can be told without writing."""
    try:
        check_slurm()
        if prepared.plan.config.parallel.engine == "deepspeed" and prepared.job.python == sys.executable:
            check_deepspeed()
        check_cluster(prepared.job)
    except ParallaxError as error:
        return error
    return None


def _submit(prepared: Prepared) -> Submission:
    job, record = prepared.job, prepared.record
    _write(prepared)
    try:
        check_acceptance(job, prepared.arguments)
        number = submit_script(str(job.script), *prepared.arguments)
    except BaseException:
        shutil.rmtree(job.folder)  # made a moment ago, for nothing
        raise
    submitted = SubmittedJob(number, time.strftime("%Y-%m-%dT%H:%M:%S%z"), tuple(range(len(prepared.members))))
    record = record.with_job(submitted)
    return with_comparison(record) if record.is_sweep else record


def _write(prepared: Prepared) -> None:
    job = prepared.job
    try:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        job.folder.mkdir()
        shutil.copyfile(prepared.config, prepared.arguments[0])
        job.script.write_text(prepared.text, encoding="utf-8")
        if job.members:
            job.sweep_file.write_text(sweep_lines(prepared.members, prepared.run_name), encoding="utf-8")
            write_comparison_job(job)
    except OSError as error:
        raise ConfigError(
            f"log folder {job.folder} cannot be made and written to ({error.strerror}); choose another with --logs"
        ) from None


def with_comparison(record: Submission) -> Submission:
    """Submits the job that compares a sweep's members once all have ended; one that fails is told and no more."""
    last = record.last
    script = str(Path(record.folder) / "compare.sbatch")
    try:
        number = submit_script(script, options=[f"--dependency=afterany:{last.id}"])
    except BackendError as error:
        print(f"warning  no comparison afterwards: {error}")
        return record
    changed = replace(record, jobs=(*record.jobs[:-1], replace(last, comparison=number)))
    changed.save()
    return changed


def _describe(prepared: Prepared) -> list[str]:
    job, place = prepared.job, prepared.plan.place
    where = "one node" if place.nodes == 1 else f"{place.nodes} nodes"
    each = " each" if job.members else ""
    gpus = f"{job.ranks_per_node} GPUs, " if job.on_gpus else ""
    lines = [
        f"plan     {place.world_size} rank(s) on {where}{each}, started by Slurm, with torchrun on each node",
        *describe_parts(prepared.plan),
        f"ask      {gpus}{job.cpus} processors a node; {format_time(job.seconds)}; "
        f"partition {job.partition or '(default)'}",
    ]
    if job.dependency:
        lines.append(f"after    {job.dependency}")
    if job.members:
        limit = f", {job.at_once} at once" if job.at_once else ""
        lines.append(f"sweep    {job.members} members{limit}; run.name={prepared.run_name}-N")
        lines += [f"         {number:>4}  {' '.join(member)}" for number, member in enumerate(prepared.members)]
    run = f"{job.run}/N" if job.members else job.run
    if prepared.members and own_value(prepared.members[0], "run.dir"):
        run = "as each member's run.dir says"
    return [*lines, f"run      {run}", f"folder   {shown(job.folder)}"]


def _describe_next(record: Submission) -> list[str]:
    job = record.last
    word = f"{job.id}_0" if record.is_sweep else job.id
    log = record.log().with_name(f"{record.name}-{job.id}_N.out") if record.is_sweep else record.log()
    lines = [f"job      {job.id}", f"logs     {shown(log)}"]
    if job.comparison:
        lines.append(f"compare  job {job.comparison} writes {shown(Path(record.folder))}/comparison.txt")
    return [
        *lines,
        f"next     {record.command('status', job.id)}",
        f"         {record.command('logs', word, ' -f')}",
        f"         {record.command('cancel', job.id)}",
    ]
