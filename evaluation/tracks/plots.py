from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.jackknife import Array, Estimate
from evaluation.pictures import new_figure
from evaluation.tracks.found import Found, Similarity

_BAR, _HARM, _HELP, _GREY = "#3b6ea8", "#b5484f", "#4c9a6a", "#7a7a7a"
_LABELLED_CELLS = 260
_MAP_TICKS = 40


def draw_all(found: Found) -> dict[str, Figure]:
    """Name -> picture of each part of what was found."""
    pictures: dict[str, Figure] = {}
    if found.tracks is not None:
        pairs = [f"tracks {i} and {j}" for i, j in found.tracks.pairs]
        loops = [f"pass {loop + 1}" for loop in range(found.setting.num_loops)]
        cka, cosine = found.tracks.cka.value, found.tracks.cosine.value
        pictures["tracks"] = _heat_maps(list(zip(pairs, cka, cosine, strict=True)), loops, found.setting.depths)
    if found.passes is not None:
        pictures["passes"] = _passes(found.passes, found.setting.depths)
    if found.map is not None:
        pictures["map"] = _map(found)
    if found.increments:
        pictures["fuse"] = _fuse(found)
    if found.ablations:
        pictures["ablations"] = _ablations(found)
    return pictures


def _heat_maps(rows: Sequence[tuple[str, Array, Array]], names: Sequence[str], depths: Sequence[str]) -> Figure:
    """A row of two heat maps, CKA and cosine, for each (title, CKA, cosine) of arrays (names, depths)."""
    # Inches that a letter takes at the sizes used: a title begins where the rows' names end.
    titled = 0.075 * max(map(len, names)) + 0.085 * max(len(f"{title}: linear CKA") for title, *_ in rows)
    width = max(3.2, 0.62 * len(depths) + 1.1, titled)
    figure = new_figure(2 * width + 0.8, len(rows) * (0.42 * len(names) + 0.95))
    grid = figure.subplots(len(rows), 2, squeeze=False)
    for line, (title, *values) in zip(grid, rows, strict=True):
        for axes, name, array in zip(line, ("linear CKA", "cosine"), values, strict=True):
            low, colours = (0.0, "Blues") if name == "linear CKA" else (-1.0, "RdBu")
            image = axes.imshow(array, vmin=low, vmax=1, cmap=colours, aspect="auto")
            _write_cells(axes, array, image)
            axes.set_xticks(range(len(depths)), depths)
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(f"{title}: {name}", loc="left", fontsize=10, fontweight="bold")
            axes.set_xlabel("layer")
        figure.colorbar(image, ax=line[1], shrink=0.9, label="cosine")
        figure.colorbar(line[0].images[0], ax=line[0], shrink=0.9, label="CKA")
    return figure


def _write_cells(axes: Any, array: Array, image: Any) -> None:
    if array.size > _LABELLED_CELLS:
        return
    for (row, column), value in np.ndenumerate(array):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
        colour = "white" if dark else "#222222"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)


def _passes(passes: Similarity, depths: Sequence[str]) -> Figure:
    names = [f"track {track}, pass {loop} and {loop + 1}" for track, loop in passes.pairs]
    return _heat_maps([("one pass and the next", passes.cka.value, passes.cosine.value)], names, depths)


def _map(found: Found) -> Figure:
    assert found.map is not None
    labels, setting = found.map.labels, found.setting
    size = min(11.0, max(4.5, 0.26 * len(labels) + 1.6))
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    image = axes.imshow(found.map.cka, vmin=0, vmax=1, cmap="Blues")
    step = -(-len(labels) // _MAP_TICKS)
    places = list(range(0, len(labels), step))
    axes.set_xticks(places, [labels[place] for place in places], rotation=90, fontsize=7)
    axes.set_yticks(places, [labels[place] for place in places], fontsize=7)
    per_pass = setting.num_layers + 1
    for edge in range(per_pass, len(labels), per_pass):
        is_track = edge % (per_pass * setting.num_loops) == 0
        for line in (axes.axhline, axes.axvline):
            line(edge - 0.5, color="#222222" if is_track else "white", linewidth=1.2)
    axes.tick_params(length=0)
    axes.set_title("linear CKA of all states (track.pass.layer)", loc="left", fontsize=10, fontweight="bold")
    figure.colorbar(image, ax=axes, shrink=0.6, label="CKA")
    return figure


def _fuse(found: Found) -> Figure:
    parts = found.increments
    names = [part.name for part in parts]
    figure = new_figure(9, 0.34 * len(parts) + 1.1)
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, names, [part.share for part in parts], "{:.1%}", lambda _: _BAR)
    left.set_title("share of the fused vector", loc="left", fontsize=10, fontweight="bold")
    left.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _bars(right, names, [part.loss_change for part in parts], "{:+.3f}", _by_sign)
    right.set_title("loss without it (nats a token)", loc="left", fontsize=10, fontweight="bold")
    return figure


def _ablations(found: Found) -> Figure:
    names = [one.name for one in found.ablations]
    figure = new_figure(8, 0.34 * len(names) + 1.1)
    axes = figure.subplots()
    _bars(axes, names, [one.change for one in found.ablations], "{:+.3f}", _by_sign)
    axes.set_title(
        f"change of the loss of {found.loss.value:.3f} nats a token", loc="left", fontsize=10, fontweight="bold"
    )
    return figure


def _by_sign(value: float) -> str:
    return _HARM if value > 0 else _HELP


def _bars(
    axes: Any, names: Sequence[str], estimates: Sequence[Estimate], form: str, colour: Callable[[float], str]
) -> None:
    """One bar for each estimate with its interval, and its value written behind it."""
    values = [estimate.value for estimate in estimates]
    errors = [(e.value - e.low, e.high - e.value) for e in estimates]
    axes.barh(
        range(len(names)),
        values,
        xerr=np.transpose(errors),
        color=[colour(value) for value in values],
        height=0.62,
        error_kw={"ecolor": "#222222", "elinewidth": 1, "capsize": 2},
    )
    for place, estimate in enumerate(estimates):
        behind = (max(estimate.high, 0), place)
        text = form.format(estimate.value)
        axes.annotate(text, behind, (4, 0), textcoords="offset points", va="center", fontsize=8, color="#444444")
    axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.16)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
