from typing import Annotated

import typer

Config = Annotated[str, typer.Argument(help="A run's YAML file, e.g. configs/tiny.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="Settings to change, e.g. optim.lr=1e-3.")
]


def train(config: Config, overrides: Overrides = None) -> int:
    """Train a run; the same command resumes it where it stopped."""
    from parallax.config.load import load_config
    from parallax.train.command import train as run

    return run(load_config(config, overrides or ()))
