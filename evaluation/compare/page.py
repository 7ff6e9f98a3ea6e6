from collections.abc import Mapping
from html import escape

from matplotlib.figure import Figure

from evaluation.compare.comparison import Comparison
from evaluation.compare.tables import all_tables
from evaluation.pictures import html_page, html_table, to_svg

_CAPTIONS = {
    "curves": "Validation loss, mean over seeds; the band goes from the lowest to the highest seed.",
    "differences": "Differences within a seed and their simultaneous intervals. Grey: no difference shown.",
    "pareto": "Final loss against cost: a point an arm, small ones its seeds. On the line: not beaten in both.",
}


def page(comparison: Comparison, pictures: Mapping[str, Figure]) -> str:
    """The report, with its pictures in it, as one file that loads nothing; equal comparisons give equal text."""
    parts = [f"<h1>{escape(comparison.title)}</h1>", "<h2>Verdicts</h2>", "<ul>"]
    parts += [f"<li>{escape(str(verdict))}</li>" for verdict in comparison.verdicts]
    parts.append("</ul>")
    for name, figure in pictures.items():
        svg = to_svg(figure, f"compare-{comparison.digest[:12]}-{name}")
        parts.append(f'<figure id="{name}">{svg}<figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>')
    for title, header, rows in all_tables(comparison.data):
        parts.append(f"<h2>{escape(title[0].upper() + title[1:])}</h2>{html_table(header, rows)}")
    parts += [section.html for section in comparison.sections]
    parts.append(f"<p>SHA-256 of what is drawn: <code>{comparison.digest}</code></p>")
    return html_page(comparison.title, "\n".join(parts))
