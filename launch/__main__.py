import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from launch.machine import check_deepspeed, check_gpus, check_port, count_gpus, free_port
from launch.parser import Parser
from launch.place import parse_place
from launch.plan import Plan, make_plan
from launch.registry import LAUNCHERS, find_launcher
from launch.request import Launcher, Request
from launch.show import describe_plan
from launch.slurm.commands import COMMANDS, look_after
from launch.slurm.options import add_slurm_options, given_slurm_options
from launch.slurm.submit import launch_by_slurm
from launch.start import start
from parallax.config.load import load_config
from parallax.errors import ConfigError, ParallaxError, run_and_explain


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m launch CONFIG --via NAME …`, or `… status JOB` and its kin; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        return run_and_explain(lambda: look_after(words))
    return run_and_explain(lambda: _launch(parse(words)))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads a command line that starts something. Raises a ConfigError."""
    parser = Parser(
        prog="python -m launch",
        description="Plan a run on one or several nodes, show it, start it. Afterwards, with Slurm: "
        f"python -m launch {'|'.join(COMMANDS)} JOB|RUN.",
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", help="YAML file, for example configs/tiny.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example parallel.track=2")
    parser.add_argument("--via", default="local", metavar="NAME", help=f"{', '.join(LAUNCHERS)}")
    parser.add_argument("--nodes", type=int, default=1, metavar="N")
    parser.add_argument(
        "--gpus-per-node",
        "--processes-per-node",
        dest="processes_per_node",
        type=int,
        metavar="G",
        help="processes on each node: one a GPU, or as many as you say on a CPU; all GPUs unless stated",
    )
    parser.add_argument("--node-rank", type=int, default=0, metavar="R", help="this node, from 0")
    parser.add_argument("--master", metavar="HOST:PORT", help="node 0 and a free port there, for several nodes")
    parser.add_argument(
        "--accelerate-config", metavar="FILE", help="accelerate's file, instead of the fitting one"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan and start nothing")
    add_slurm_options(parser)
    return parser.parse_intermixed_args(arguments)


def _launch(given: argparse.Namespace) -> int:
    launcher = find_launcher(given.via)
    if given.config is None:
        raise ConfigError("CONFIG is missing; for example: python -m launch configs/tiny.yaml --via torchrun")
    if given.via == "slurm":
        return launch_by_slurm(given)
    foreign = given_slurm_options(given)
    if foreign:
        raise ConfigError(f"{foreign[0]} is for --via slurm; leave it out, or add --via slurm")
    request = _request(given)
    if launcher.needs_port and not request.place.port and not given.dry_run:
        request = replace(request, place=replace(request.place, port=free_port()))
    plan = make_plan(given.via, launcher, request)
    problem = _find_problem(launcher, request, plan)
    if problem is not None and not given.dry_run:
        raise problem
    for line in describe_plan(plan, dry_run=given.dry_run):
        print(line)
    if given.dry_run:
        # It may be for another machine: what this one would refuse is told and no more.
        if problem is not None:
            print(f"warning  would not start here: {problem}")
        return 0
    sys.stdout.flush()
    return start(plan.argv, plan.environment)


def _request(given: argparse.Namespace) -> Request:
    config = load_config(given.config, given.overrides)
    gpus = count_gpus(os.environ)
    processes = given.processes_per_node
    if processes is None:
        processes = 1 if given.via == "local" else max(gpus, 1)
    return Request(
        config=config,
        arguments=(given.config, *given.overrides),
        place=parse_place(given.nodes, processes, given.node_rank, given.master),
        python=sys.executable,
        gpus=gpus,
        environment=os.environ,
        accelerate_file=given.accelerate_config,
    )


def _find_problem(launcher: Launcher, request: Request, plan: Plan) -> ParallaxError | None:
    """What keeps this machine from starting the plan."""
    try:
        launcher.check(request)
        if plan.config.parallel.engine == "deepspeed":
            check_deepspeed()
        check_gpus(request.place, request.gpus, request.config.runtime.device)
        check_port(request.place)
    except ParallaxError as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
