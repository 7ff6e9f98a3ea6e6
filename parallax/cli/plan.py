from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallax.cli.output import print_json
from parallax.cli.plan_report import plan_report, print_report
from parallax.cli.plan_search import fit_report, largest_report, print_found, search_report
from parallax.cli.train import Config, Overrides

if TYPE_CHECKING:
    from parallax.train.planning.gpus import Gpu
    from parallax.train.planning.step_time import Machine


def plan(
    config: Config,
    overrides: Overrides = None,
    world_size: Annotated[int, typer.Option(help="Ranks of the run.", min=1)] = 1,
    rank: Annotated[int, typer.Option(help="The rank to plan, from 0.", min=0)] = 0,
    ranks_per_node: Annotated[int, typer.Option(help="Neighbouring ranks on one node.", min=1)] = 8,
    memory: Annotated[str | None, typer.Option(help="Say whether a rank fits into this, e.g. 6GiB.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Find the fastest layouts that fit.")] = False,
    largest: Annotated[bool, typer.Option("--largest", help="Find the family's largest model that fits.")] = False,
    gpu: Annotated[str | None, typer.Option(help="Take memory and rates of a known card, e.g. rtx3050.")] = None,
    measured: Annotated[str | None, typer.Option(help="JSON file of gpu-proof: what was measured.")] = None,
    flops: Annotated[float | None, typer.Option(help="Peak TFLOP/s of a rank.", min=1e-6)] = None,
    utilisation: Annotated[float, typer.Option(help="Share of the peak that is reached.", min=0.01, max=1)] = 0.4,
    link_bandwidth: Annotated[
        float | None, typer.Option(help="GB/s a rank sends inside a node; 50, or the card's.", min=1e-6)
    ] = None,
    node_bandwidth: Annotated[float, typer.Option(help="Gbit/s that leave a node.", min=1e-6)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict a rank's parameters, memory and traffic; no GPU needed."""
    from parallax.config.load import load_config
    from parallax.errors import ConfigError
    from parallax.train.planning.fit import parse_bytes
    from parallax.train.planning.gpus import find_gpu
    from parallax.train.planning.measured import read_measured
    from parallax.train.planning.rehearsal import plan_rank

    if search and largest:
        raise ConfigError("--search and --largest answer different questions; give one of them")
    if (search or largest) and memory is None and gpu is None:
        raise ConfigError(f"--{'search' if search else 'largest'} needs what a rank has: add --memory 6GiB")
    run = load_config(config, overrides or ())
    card = find_gpu(gpu) if gpu is not None else None
    available = parse_bytes(memory) if memory is not None else card.memory_bytes if card is not None else None
    known = read_measured(measured) if measured is not None else []
    machine = _machine(card, flops, utilisation, link_bandwidth, node_bandwidth, ranks_per_node)
    if available is not None and (search or largest):
        source = "stated" if flops is not None else f"data sheet of {gpu}" if gpu else "assumed, give --flops"
        report = (
            search_report(run, available, world_size, machine, known, source=source)
            if search
            else largest_report(run, available, world_size, known)
        )
        _show(report, as_json)
        raise typer.Exit(0 if report["fits"] else 1)
    planned = plan_rank(run, world_size=world_size, rank=rank)
    report = plan_report(run, planned, ranks_per_node)
    if not as_json:
        print_report(report)
    if available is not None:
        fit = fit_report(run, planned, available, machine, known)
        report["fit"] = fit
        if not as_json:
            print_found(fit)
    if as_json:
        print_json(report)
    if available is not None and not report["fit"]["fits"]:
        raise typer.Exit(1)


def _machine(
    card: "Gpu | None",
    flops: float | None,
    utilisation: float,
    link_gigabytes: float | None,
    node_gigabits: float,
    ranks_per_node: int,
) -> "Machine":
    from parallax.train.planning.step_time import Machine

    rate = flops * 1e12 if flops is not None else card.flops if card is not None else Machine.flops
    link = link_gigabytes if link_gigabytes is not None else card.link_gigabytes if card is not None else 50
    return Machine(rate, utilisation, link * 1e9, node_gigabits * 1e9 / 8, ranks_per_node)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        print_found(report)
