import sys
from collections.abc import Sequence
from typing import Any

import typer

from parallax import __version__
from parallax.cli.checkpoint import checkpoint_app
from parallax.cli.curve import curve
from parallax.cli.data import data_app
from parallax.cli.demo import demo
from parallax.cli.doctor import doctor
from parallax.cli.evaluate import evaluate
from parallax.cli.export_model import export_model
from parallax.cli.fill import fill
from parallax.cli.generate import generate
from parallax.cli.import_model import import_model
from parallax.cli.init import init
from parallax.cli.keys import keys
from parallax.cli.plan import plan
from parallax.cli.track import track_app
from parallax.cli.train import train
from parallax.errors import run_and_explain
from parallax.runtime.threads import limit_spinning

# Typer keeps its copy of click to itself; its public BadParameter derives from the usage error we catch.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="parallax",
    help="Train, evaluate and compare language models made of tracks.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"parallax {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_print_version),
) -> None:
    """Train, evaluate and compare language models made of tracks."""


app.command()(train)
app.command()(init)
app.command()(plan)
app.command()(doctor)
app.add_typer(data_app)
app.command()(generate)
app.command()(fill)
app.command(name="eval")(evaluate)
app.command()(curve)
app.command(name="import")(import_model)
app.command(name="export")(export_model)
app.add_typer(checkpoint_app)
app.add_typer(track_app)
app.command()(keys)
app.command()(demo)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: runs a command and exits; user errors are one line on stderr and exit code 2."""
    limit_spinning()
    sys.exit(run_and_explain(lambda: _invoke(arguments)))


def _invoke(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        code = command.main(args=given or ["--help"], prog_name="parallax", standalone_mode=False)
    except _UsageError as error:
        print(f"error: {error.format_message()} See: {_help_of(error)}", file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    return int(code or 0)


def _help_of(error: Any) -> str:
    path = error.ctx.command_path if error.ctx is not None else "parallax"
    return f"{path} --help"
