from pathlib import Path
from typing import Annotated

import typer


def curve(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    png: Annotated[Path | None, typer.Option(help="Where to write the picture; default: RUN/curve.png.")] = None,
) -> None:
    """Draw a run's loss curve on the terminal and into a PNG."""
    from parallax.errors import RunError
    from parallax.metrics.curve import save_curve_png, terminal_curve
    from parallax.metrics.journal import read_journal

    records = read_journal(run / "journal.jsonl")
    if not records:
        raise RunError(f"{run}: no journal.jsonl with a logged step; give the folder of a run that has trained")
    picture = png or run / "curve.png"
    print(terminal_curve(records))
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_curve_png(records, picture, title=run.name)
    print(f"picture: {picture}")
