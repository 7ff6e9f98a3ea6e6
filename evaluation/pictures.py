import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_RULE = re.compile(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>")
_ID = re.compile(r'\bid="|url\(#|href="#')
_INHERITED = "stroke-linejoin:round;stroke-linecap:butt"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches.

    By hand instead of by pyplot, which would pick a window system and keep every figure alive.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The picture at 160 dots an inch."""
    return _rendered(figure, format="png", dpi=160)


def to_svg(figure: Figure, name: str) -> str:
    """The picture as an `<svg>` element to stand in a page; the same figure and name give the same text.

    The name begins every id inside: pictures of one page need different ones.
    """
    # Without a salt of ours the ids would be random.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        text = _rendered(figure, format="svg", metadata={"Date": None}).decode()
    # Matplotlib's rule for all elements would hold for the whole page; what it sets is inherited as well.
    alone = _RULE.sub("", text[text.index("<svg") :])
    return _ID.sub(rf"\g<0>{name}-", alone).replace("<svg", f'<svg style="{_INHERITED}"', 1)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_page(title: str, body: str) -> str:
    """A page of its own around a section."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}"
        "svg{max-width:100%;height:auto}figure{margin:1.5em 0}figcaption{color:#555}"
        "table{display:block;overflow-x:auto;border-collapse:collapse;font-variant-numeric:tabular-nums}"
        "th,td{padding:.15em .8em;text-align:right}th:first-child{text-align:left}tbody th{font-weight:normal}"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _rendered(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()
