from pathlib import Path
from typing import Annotated, Any

import typer

from parallax.cli.output import print_json, print_table
from parallax.cli.train import Config, Overrides


def init(
    config: Config,
    overrides: Overrides = None,
    output: Annotated[str | None, typer.Option(help="Folder of the model; default: RUN.DIR-init.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write an untrained model; print its parameters and memory."""
    from rich.console import Console

    from parallax.config.load import load_config
    from parallax.metrics.flops import parameter_counts
    from parallax.metrics.footprint import memory_estimate
    from parallax.runtime.device import resolve_device, resolve_precision
    from parallax.train.display import PlainDisplay
    from parallax.train.untrained import write_untrained

    run = load_config(config, overrides or ())
    counts = parameter_counts(run.model)
    precision = resolve_precision(run.train.precision, resolve_device(run.runtime.device)).name
    memory = memory_estimate(
        run.model, run.train.micro_batch, precision, run.train.activation_checkpointing, run.loss.chunk_tokens
    )
    path = write_untrained(run, Path(output or f"{run.run.dir}-init"), PlainDisplay(Console(stderr=True)))
    report: dict[str, Any] = {
        "checkpoint": str(path),
        "parameters": counts.total,
        "parameters_without_embeddings": counts.without_embeddings,
        "parameters_per_track": counts.per_track,
        "memory_bytes": memory.total_bytes,
    }
    if as_json:
        print_json(report)
        return
    print_table(
        "",
        ["parameters", ""],
        [
            ["total", f"{counts.total:,}"],
            ["without embeddings", f"{counts.without_embeddings:,}"],
            ["per track", f"{counts.per_track:,}"],
        ],
    )
    print(f"training needs about {memory.total_bytes / 2**20:,.0f} MiB at micro-batch {run.train.micro_batch}")
    print(f"written to {path}")
