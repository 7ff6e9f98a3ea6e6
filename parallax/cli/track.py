from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from parallax.cli.output import print_json

track_app = typer.Typer(name="track", help="Bring trackers up to date.", rich_markup_mode=None)


@track_app.callback()
def _track() -> None:
    """Bring trackers up to date."""


@track_app.command()
def sync(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    uri: Annotated[str | None, typer.Option(help="MLflow store; the run's own unless stated.")] = None,
    experiment: Annotated[str | None, typer.Option(help="For a run that MLflow does not know.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send to MLflow what it lacks of runs that have ended; what it has is not sent again."""
    from parallax.train.sync import sync_run

    found = {}
    for path in runs:
        found[str(path)] = one = sync_run(path, uri, experiment, partial(typer.echo, err=True))
        if not as_json:
            samples = f"{one.system_samples:,} system samples, " if one.system_samples else ""
            print(f"{path}: {one.lines:,} journal lines, {samples}{one.status}, in {one.uri} as {one.run_id}")
    if as_json:
        print_json({path: vars(one) for path, one in found.items()})
