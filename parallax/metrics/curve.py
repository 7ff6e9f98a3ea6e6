import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallax.metrics.journal import OTHER_VALIDATION, Record
from parallax.runtime.files import write_bytes_atomic

_TICKS = 6
_TRAIN_COLOUR = "#3b6ea8"
_VALIDATION_COLOUR = "#d9822b"
_OTHER_COLOURS = ("#4c9a6a", "#8e5ea2", "#b5484f", "#7a7a7a")


@dataclass(frozen=True)
class _Series:
    steps: list[int]
    losses: list[float]


def _series(records: Sequence[Record], key: str) -> _Series:
    """The finite values of `key` over steps; if a step has several, the last."""
    points = {record["step"]: record[key] for record in records if record.get(key) is not None}
    return _Series(list(points), list(points.values()))


def terminal_curve(records: Sequence[Record], width: int = 78, height: int = 16) -> str:
    """Training and validation loss over steps, drawn in characters without colours.

    Args:
        records: journal lines; those without `loss` and `val_loss` draw nothing.
        width: columns.
        height: rows.

    Returns:
        `height` lines of at most `width` characters; one line of text if there is nothing to draw.
    """
    train, validation = _series(records, "loss"), _series(records, "val_loss")
    if not train.steps and not validation.steps:
        return "no loss has been logged yet"
    import plotext

    # The library has one figure for all; it would also cut it to the size of the terminal.
    figure = plotext.figure
    plotext.terminal.limit(False, False)
    try:
        figure.clear()
        figure.plot_size(width, height)
        figure.title("loss in nats per token (line: train, x: validation)")
        figure.label("step", axis="x")
        _draw(figure, train, "braille", connected=len(train.steps) > 1)
        _draw(figure, validation, "x", connected=False)
        for axis, values in (("x", train.steps + validation.steps), ("y", train.losses + validation.losses)):
            ticks = _nice_ticks(min(values), max(values), whole=axis == "x")
            figure.ruler(axis).ticks(ticks, [f"{tick:.4g}" if axis == "y" else f"{tick:.0f}" for tick in ticks])
        return str(figure.build().string(colorless=True)).rstrip("\n")
    finally:
        figure.clear()
        plotext.terminal.limit()


def _draw(figure: Any, series: _Series, marker: str, *, connected: bool) -> None:
    if series.steps:
        signal = figure.signal(series.steps, series.losses, marker=marker)
        figure.draw(signal.lines() if connected else signal)


def _nice_ticks(low: float, high: float, whole: bool) -> list[float]:
    """Round numbers between two values, few enough for labels side by side."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(_TICKS, integer=whole).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high] or [low]


def save_curve_png(records: Sequence[Record], path: Path, title: str) -> None:
    """Writes the training and validation loss over steps as a PNG of 1600 x 900 pixels.

    Raises:
        DiskFullError: no room; a picture that was there before is untouched.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    train, validation = _series(records, "loss"), _series(records, "val_loss")
    # Figure and canvas by hand: pyplot would pick a window system and keep every figure alive.
    figure = Figure(figsize=(8, 4.5), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    alone = "o" if len(train.steps) == 1 else None
    axes.plot(train.steps, train.losses, color=_TRAIN_COLOUR, linewidth=1.4, marker=alone, label="train")
    if validation.steps:
        axes.plot(
            validation.steps,
            validation.losses,
            color=_VALIDATION_COLOUR,
            linewidth=1.6,
            marker="o",
            markersize=4,
            label=f"validation (last {validation.losses[-1]:.3f})",
        )
    others = sorted({key for record in records for key in record if key.startswith(OTHER_VALIDATION)})
    for number, key in enumerate(others):
        series, colour = _series(records, key), _OTHER_COLOURS[number % len(_OTHER_COLOURS)]
        name = key.removeprefix(OTHER_VALIDATION)
        axes.plot(series.steps, series.losses, color=colour, linewidth=1.2, marker="o", markersize=3, label=name)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    if train.steps or validation.steps:
        axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_bytes_atomic(path, picture.getvalue())
