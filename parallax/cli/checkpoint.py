from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallax.cli.output import print_json, print_table

if TYPE_CHECKING:
    from parallax.checkpoint.survey import Found

checkpoint_app = typer.Typer(
    name="checkpoint", help="Look at, verify and convert checkpoints.", rich_markup_mode=None
)

RunArgument = Annotated[Path, typer.Argument(help="A run folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@checkpoint_app.callback()
def _checkpoint() -> None:
    """Look at, verify and convert checkpoints."""


@checkpoint_app.command(name="list")
def list_checkpoints(run: RunArgument, as_json: JsonOption = False) -> None:
    """List a run's checkpoints; sizes are checked, contents are not read."""
    _print(run, _survey(run, contents=False), as_json=as_json, fine="complete")


@checkpoint_app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A run folder, for all its checkpoints, or one checkpoint.")],
    as_json: JsonOption = False,
) -> None:
    """Read every byte and compare it with what was saved; exit code 2 if anything is damaged."""
    from parallax.checkpoint.manifest import MANIFEST_FILE, verify_checkpoint
    from parallax.errors import CheckpointError

    if (path / MANIFEST_FILE).exists() or not path.is_dir():
        manifest = verify_checkpoint(path)
        if as_json:
            print_json({"path": str(path), "step": manifest.step, "files": len(manifest.files), "good": True})
        else:
            print(f"{path}: step {manifest.step}, {len(manifest.files)} files, every byte as saved")
        return
    found = _survey(path, contents=True)
    _print(path, found, as_json=as_json, fine="good")
    damaged = [one for one in found if one.problem is not None]
    if damaged:
        raise CheckpointError(
            f"{len(damaged)} of {len(found)} checkpoints cannot be used; damaged ones are passed over; "
            f"restore them from a copy, or delete them"
        )


@checkpoint_app.command()
def convert(
    path: Annotated[str, typer.Argument(help="A run folder, or a checkpoint in it.")],
    output: Annotated[Path, typer.Option(help="Checkpoint folder to make; must not exist.")],
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint of any layout as one process would have saved it."""
    from parallax.checkpoint.convert import convert_checkpoint

    found = convert_checkpoint(path, output)
    if as_json:
        print_json({"path": str(output), "source": str(found.path), "step": found.step})
    else:
        print(f"{found.path}, step {found.step}: written to {output}")


def _survey(run: Path, *, contents: bool) -> "list[Found]":
    from parallax.checkpoint.catalogue import CheckpointCatalogue
    from parallax.checkpoint.locate import CHECKPOINTS_FOLDER
    from parallax.checkpoint.survey import survey
    from parallax.errors import CheckpointError

    inner = run / CHECKPOINTS_FOLDER
    found = list(survey(CheckpointCatalogue(inner if inner.is_dir() else run), contents=contents))
    if not found:
        raise CheckpointError(f"{run} holds no checkpoint; expected a run folder, or its checkpoints/")
    return found


def _print(run: Path, found: "list[Found]", *, as_json: bool, fine: str) -> None:
    if as_json:
        print_json({"run": str(run), "checkpoints": [_values(one) for one in found]})
        return
    rows = [
        [
            one.path.name,
            f"{one.size_bytes / 1e6:,.1f}",
            f"{one.num_writers}",
            "best" if one.is_best else "",
            fine if one.problem is None else "damaged",
        ]
        for one in found
    ]
    print_table("", ["checkpoint", "MB", "ranks", "", "state"], rows)
    for one in found:
        if one.problem is not None:
            print(f"{one.path.name}: {one.problem}")


def _values(one: "Found") -> dict[str, Any]:
    return {
        "step": one.step,
        "path": str(one.path),
        "size_bytes": one.size_bytes,
        "ranks": one.num_writers,
        "best": one.is_best,
        "problem": one.problem,
    }
