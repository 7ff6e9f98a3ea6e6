import io
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


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


def to_svg(figure: Figure, salt: str) -> str:
    """The picture as an `<svg>` element to stand in a page; the same figure and salt give the same text.

    The salt enters the ids inside: pictures of one page need different ones.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        text = _rendered(figure, format="svg", metadata={"Date": None}).decode()
    return text[text.index("<svg") :]


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
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
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
