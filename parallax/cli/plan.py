from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallax.cli.output import print_json
from parallax.cli.plan_report import plan_report, print_report
from parallax.cli.plan_search import fit_report, largest_report, print_found, search_report
from parallax.cli.train import Config, Overrides

if TYPE_CHECKING:
    from parallax.train.step_time import Machine


def plan(
    config: Config,
    overrides: Overrides = None,
    world_size: Annotated[int, typer.Option(help="Ranks of the run.", min=1)] = 1,
    rank: Annotated[int, typer.Option(help="The rank to plan, from 0.", min=0)] = 0,
    ranks_per_node: Annotated[int, typer.Option(help="Neighbouring ranks on one node.", min=1)] = 8,
    memory: Annotated[str | None, typer.Option(help="Say whether a rank fits into this, e.g. 6GiB.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Find the fastest layouts that fit.")] = False,
    largest: Annotated[bool, typer.Option("--largest", help="Find the family's largest model that fits.")] = False,
    flops: Annotated[float | None, typer.Option(help="Peak TFLOP/s of a rank.", min=1e-6)] = None,
    utilisation: Annotated[float, typer.Option(help="Share of the peak that is reached.", min=0.01, max=1)] = 0.4,
    link_bandwidth: Annotated[float, typer.Option(help="GB/s a rank sends inside a node.", min=1e-6)] = 50,
    node_bandwidth: Annotated[float, typer.Option(help="Gbit/s that leave a node.", min=1e-6)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict a rank's parameters, memory and traffic; no GPU needed."""
    from parallax.config.load import load_config
    from parallax.errors import ConfigError
    from parallax.train.fit import parse_bytes
    from parallax.train.zero_plan import plan_run

    if search and largest:
        raise ConfigError("--search and --largest answer different questions; give one of them")
    if (search or largest) and memory is None:
        raise ConfigError(f"--{'search' if search else 'largest'} needs what a rank has: add --memory 6GiB")
    run = load_config(config, overrides or ())
    available = parse_bytes(memory) if memory is not None else None
    machine = _machine(flops, utilisation, link_bandwidth, node_bandwidth, ranks_per_node)
    if available is not None and (search or largest):
        report = (
            search_report(run, available, world_size, machine, stated=flops is not None)
            if search
            else largest_report(run, available, world_size)
        )
        _show(report, as_json)
        raise typer.Exit(0 if report["fits"] else 1)
    planned = plan_run(run, world_size=world_size, rank=rank)
    report = plan_report(run, planned, ranks_per_node)
    if not as_json:
        print_report(report)
    if available is not None:
        fit = fit_report(run, planned, available, machine)
        report["fit"] = fit
        if not as_json:
            print_found(fit)
    if as_json:
        print_json(report)
    if available is not None and not report["fit"]["fits"]:
        raise typer.Exit(1)


def _machine(
    flops: float | None, utilisation: float, link_gigabytes: float, node_gigabits: float, ranks_per_node: int
) -> "Machine":
    from parallax.train.step_time import Machine

    rate = Machine.flops if flops is None else flops * 1e12
    return Machine(rate, utilisation, link_gigabytes * 1e9, node_gigabits * 1e9 / 8, ranks_per_node)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        print_found(report)
