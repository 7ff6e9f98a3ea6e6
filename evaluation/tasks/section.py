import hashlib
import json
from html import escape

from evaluation.pictures import html_table, to_svg
from evaluation.tasks.measure import TaskReport
from evaluation.tasks.plots import draw_accuracies
from evaluation.tasks.report import tables


def section(report: TaskReport) -> str:
    """The figures as one `<section>` of HTML with its picture in it, to stand in another report.

    It loads nothing and styles nothing outside itself; the same figures give the same text.
    """
    parts = [
        '<section class="tasks">',
        f"<h2>Tasks of {escape(report.model)}</h2>",
        f"<p>Items from {escape(report.text)}, sha256 {report.items_sha256[:16]}: models with the same were asked "
        "the same. Intervals are 95 %.</p>",
    ]
    if report.accuracies:
        salt = hashlib.sha256(json.dumps(report.to_json(), sort_keys=True).encode()).hexdigest()[:12]
        parts.append(f"<figure>{to_svg(draw_accuracies(report), f'tasks-{salt}')}</figure>")
    for title, header, rows in tables(report):
        parts.append(f"<h3>{escape(title)}</h3>{html_table(header, rows)}")
    return "\n".join([*parts, "</section>"])
