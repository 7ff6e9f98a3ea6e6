"""`python -m evaluation.scaling.crossover [--link MEGABITS] [--rounds N] [--output DIR]`: tracks against DDP.

More tokens a step mean more states for the tracks to tell each other, and the same gradients for DDP: above some
number of tokens DDP is faster. Predicted from bytes and steps without a link, then observed over one.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

from evaluation.faults.network import Link, why_no_link
from evaluation.scaling.contenders import DDP, SPLIT
from evaluation.scaling.crossing import StepModel, crossing
from evaluation.scaling.measure import Rounds, Study
from parallax.config.layout import Layout
from parallax.config.load import load_config
from parallax.config.run import RunConfig
from parallax.errors import BackendError, ConfigError, run_and_explain
from parallax.metrics.traffic import StepBytes, crossover_tokens, step_bytes

_SHAPE = (
    "model.vocab_size=512",
    "model.hidden_size=256",
    "model.num_layers=3",
    "model.num_kv_heads=4",
    "model.intermediate_size=768",
    "model.max_seq_len=256",
)
"""Small enough, with so small a vocabulary, that DDP pays from two to four thousand tokens a step on."""
_ROWS = (6, 8, 10, 12, 14, 16)
_BANDWIDTHS = (10, 30, 100, 300, 1000, 3000, 10000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints prediction, observation and the map; returns 1 where they differ by more than 15 %."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.scaling.crossover", description=__doc__)
    parser.add_argument("--config", default="configs/reference.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="after the small shape's")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--link", type=float, default=50.0, metavar="MEGABITS")
    parser.add_argument("--rows", type=int, nargs="+", default=list(_ROWS), help="windows of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="folder for results and the map as a picture")
    given = parser.parse_args(arguments)
    return run_and_explain(lambda: _study(given))


def _study(given: argparse.Namespace) -> int:
    if (why := why_no_link()) is not None:
        raise BackendError(f"the crossover is observed over a link: {why}")
    if len(given.rows) < 2:
        raise ConfigError(f"--rows {given.rows}: two numbers of windows are needed, one below the crossover")
    console = Console()
    overrides = [*_SHAPE, *given.set]
    batch = [f"train.global_batch={max(given.rows)}", f"train.micro_batch={max(given.rows)}"]
    config = load_config(given.config, [*overrides, *batch])
    study = Study(given.config, overrides, given.precision, given.rounds, given.output, console)
    free = study.measure([SPLIT, DDP], given.rows, None, None)
    with Link() as link:
        link.limit(given.link)
        found = study.measure([SPLIT, DDP], given.rows, link, given.link)
    length = config.model.max_seq_len
    tracks, ddp = (_model(config, name, free, given.rows) for name in (SPLIT.name, DDP.name))
    _print_steps(console, given.rows, length, free, found, {SPLIT.name: tracks, DDP.name: ddp}, given.link)
    by_bytes = crossover_tokens(*_bytes(config))
    predicted = tracks.crossing(ddp, given.link)
    curves = [[found[name, rows].median() for rows in given.rows] for name in (SPLIT.name, DDP.name)]
    observed = crossing([rows * length for rows in given.rows], *curves)
    _print_map(console, tracks, ddp, given.output)
    console.print(f"DDP sends fewer bytes above {by_bytes:,.0f} tokens a step", highlight=False)
    if predicted is None or observed is None:
        console.print(f"predicted {predicted}, observed {observed}: give --rows on both sides of the crossover")
        return 1
    console.print(
        f"DDP is faster at {given.link:g} Mbit/s above {predicted:,.0f} tokens a step as predicted, above "
        f"{observed:,.0f} as observed: {observed / predicted - 1:+.1%}",
        highlight=False,
    )
    return 0 if abs(observed / predicted - 1) <= 0.15 else 1


def _bytes(config: RunConfig) -> tuple[StepBytes, StepBytes]:
    layouts = Layout(track=2, dp_replicate=1, dp_shard=1), Layout(track=1, dp_replicate=2, dp_shard=1)
    tracks, ddp = (step_bytes(config.model, layout, "vocab_split") for layout in layouts)
    return tracks, ddp


def _model(config: RunConfig, name: str, free: Rounds, rows: Sequence[int]) -> StepModel:
    sent = dict(zip((SPLIT.name, DDP.name), _bytes(config), strict=True))[name]
    tokens = [count * config.model.max_seq_len for count in rows]
    return StepModel(tokens, [free[name, count].median() for count in rows], sent.fixed, sent.per_token)


def _print_steps(
    console: Console,
    rows: Sequence[int],
    length: int,
    free: Rounds,
    found: Rounds,
    models: dict[str, StepModel],
    megabits: float,
) -> None:
    table = Table(title=f"s/step at {megabits:g} Mbit/s", title_justify="left", box=None, pad_edge=False)
    for column in (
        "tokens",
        *(f"{name}{part}" for name in models for part in (", alone", ", link", ", predicted")),
    ):
        table.add_column(column, justify="right")
    for count in rows:
        cells = [f"{count * length:,}"]
        for name, model in models.items():
            predicted = model.seconds(count * length, megabits)
            cells += [
                f"{value:.2f}" for value in (free[name, count].median(), found[name, count].median(), predicted)
            ]
        table.add_row(*cells)
    console.print(table)


def _print_map(console: Console, tracks: StepModel, ddp: StepModel, output: Path | None) -> None:
    """DDP's step over the tracks': above 1 tracks are faster."""
    tokens = [256 * 2**power for power in range(8)]
    grid = np.array([[ddp.seconds(n, m) / tracks.seconds(n, m) for n in tokens] for m in _BANDWIDTHS])
    table = Table(
        title="DDP's seconds over the tracks', predicted", title_justify="left", box=None, pad_edge=False
    )
    table.add_column("Mbit/s", justify="right")
    for count in tokens:
        table.add_column(f"{count:,}", justify="right")
    for megabits, line in zip(_BANDWIDTHS, grid, strict=True):
        table.add_row(f"{megabits:,}", *(f"{ratio:.2f}" for ratio in line))
    console.print(table)
    if output is not None:
        _draw_map(grid, tokens, tracks, ddp, output / "map.png")


def _draw_map(grid: np.ndarray, tokens: list[int], tracks: StepModel, ddp: StepModel, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    limit = float(np.abs(np.log2(grid)).max())
    mesh = axes.pcolormesh(
        tokens, _BANDWIDTHS, np.log2(grid), cmap="RdBu", vmin=-limit, vmax=limit, shading="gouraud"
    )
    figure.colorbar(mesh, label="log2 (DDP's seconds / the tracks')")
    points = [(tracks.crossing(ddp, m), m) for m in np.geomspace(_BANDWIDTHS[0], _BANDWIDTHS[-1], 50)]
    line = [(n, m) for n, m in points if n is not None and tokens[0] <= n <= tokens[-1]]
    if line:
        axes.plot(*zip(*line, strict=True), color="black", label="as fast as each other")
        axes.legend(loc="upper right")
    axes.set(xscale="log", yscale="log", xlabel="tokens of an optimizer step", ylabel="Mbit/s between two nodes")
    axes.set_title("Blue: tracks are faster; red: DDP is")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
