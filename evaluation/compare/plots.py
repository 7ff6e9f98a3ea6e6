from typing import Any

from matplotlib.figure import Figure

from evaluation.compare.curves import LABELS, curve_axis
from evaluation.pictures import new_figure

_COLOURS = ("#3b6ea8", "#d9822b", "#4c9a6a", "#8e5ea2", "#b5484f", "#7a7a7a", "#2a9d9d", "#c2a12b")
_GREY = "#7a7a7a"


def draw_all(data: dict[str, Any]) -> dict[str, Figure]:
    """Name -> picture: curves, differences, and loss against cost."""
    return {"curves": _curves(data), "differences": _differences(data), "pareto": _pareto(data)}


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _curves(data: dict[str, Any]) -> Figure:
    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    for number, arm in enumerate(data["arms"]):
        points = arm["curve"]
        xs = [point["x"] for point in points]
        style = ("-", "--", ":")[number // len(_COLOURS) % 3]
        axes.plot(xs, [p["loss"] for p in points], style, color=_colour(number), marker=".", label=arm["name"])
        lows, highs = [p["low"] for p in points], [p["high"] for p in points]
        axes.fill_between(xs, lows, highs, color=_colour(number), alpha=0.15, linewidth=0)
    axes.set_xlabel(LABELS[curve_axis(data["by"])])
    axes.set_ylabel("validation loss, nats a token")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _differences(data: dict[str, Any]) -> Figure:
    pairs = data["pairs"]
    figure = new_figure(8, 0.9 + 0.42 * len(pairs))
    axes = figure.subplots()
    for row, pair in enumerate(pairs):
        shown = pair["half_width"] is not None and abs(pair["mean"]) > pair["half_width"]
        colour = _GREY if not shown else "#4c9a6a" if pair["mean"] < 0 else "#b5484f"
        axes.errorbar(pair["mean"], row, xerr=pair["half_width"], fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [f"{pair['first']} − {pair['second']}" for pair in pairs], fontsize=8)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.set_xlabel("difference in final validation loss, nats a token; left of 0: the first is better")
    axes.grid(axis="x", alpha=0.25)
    return figure


def _pareto(data: dict[str, Any]) -> Figure:
    figure = new_figure(8, 4.2)
    axes = figure.subplots()
    front = sorted((arm["cost"], arm["mean_final"]) for arm in data["arms"] if arm["on_front"])
    axes.step([cost for cost, _ in front], [loss for _, loss in front], where="post", color=_GREY, linewidth=1)
    for number, arm in enumerate(data["arms"]):
        losses = list(arm["finals"].values())
        axes.plot([arm["cost"]] * len(losses), losses, ".", color=_colour(number), alpha=0.4)
        axes.plot(arm["cost"], arm["mean_final"], "o", color=_colour(number), label=arm["name"])
    axes.set_xlabel(LABELS[data["by"]])
    axes.set_ylabel("final validation loss, nats a token")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    return figure
