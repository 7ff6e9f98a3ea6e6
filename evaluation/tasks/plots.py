from matplotlib.figure import Figure

from evaluation.pictures import new_figure
from evaluation.tasks.measure import TaskReport

_DOT, _CHANCE = "#3b6ea8", "#b5484f"


def draw_accuracies(report: TaskReport) -> Figure:
    """The share of right choices of each kind with its interval, and what guessing gets."""
    kinds = report.accuracies
    figure = new_figure(8, 0.36 * len(kinds) + 1.2)
    axes = figure.subplots()
    for place, one in enumerate(kinds):
        share = one.accuracy
        axes.plot([share.low, share.high], [place, place], color=_DOT, linewidth=1.6)
        axes.plot([one.chance], [place], color=_CHANCE, marker="|", markersize=13, markeredgewidth=2, linestyle="")
    values = [one.accuracy.value for one in kinds]
    axes.plot(values, range(len(kinds)), color=_DOT, marker="o", linestyle="", label="right, 95 % interval")
    axes.plot([], [], color=_CHANCE, marker="|", markersize=11, markeredgewidth=2, linestyle="", label="guessing")
    axes.set_yticks(range(len(kinds)), [f"{one.suite}: {one.kind}" for one in kinds])
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("how often the model chooses what the text has", loc="left", fontsize=10, fontweight="bold")
    figure.legend(loc="outside lower left", frameon=False, fontsize=9, ncols=2)
    return figure
