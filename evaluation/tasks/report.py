from rich.console import Console
from rich.table import Table

from evaluation.tasks.choices import Share
from evaluation.tasks.exact import ExactMatch
from evaluation.tasks.measure import TaskReport
from evaluation.tasks.write_text import Written

Rows = list[list[str]]


def print_report(console: Console, report: TaskReport) -> None:
    """All figures, as tables."""
    console.print(f"{report.model}\nitems from {report.text}, sha256 {report.items_sha256[:16]}")
    for title, header, rows in tables(report):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for number, column in enumerate(header):
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(table)


def tables(report: TaskReport) -> list[tuple[str, list[str], Rows]]:
    """Title, header and rows of every table; the first column names the row."""
    shown: list[tuple[str, list[str], Rows]] = []
    rows = [
        [
            f"{one.suite}: {one.kind}",
            f"{one.items}",
            *_share(one.accuracy),
            f"{one.chance:.1%}",
            f"{one.bits_per_byte:.3f}",
        ]
        for one in report.accuracies
    ]
    if report.exact:
        rows.append(_exact_row(report.exact))
    if rows:
        header = ["", "items", "right", "95 % interval", "chance", "bits/byte"]
        shown.append(("how often the model chooses what the text has", header, rows))
    if report.written:
        shown.append(_written_table(report.written))
    return shown


def _exact_row(exact: ExactMatch) -> list[str]:
    return [
        "cloze: last word, without choices",
        f"{exact.items}",
        *_share(exact.share),
        f"{exact.commonest:.1%}",
        "",
    ]


def _share(share: Share) -> tuple[str, str]:
    return f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}"


def _written_table(written: Written) -> tuple[str, list[str], Rows]:
    asked = len(next(iter(written.texts.values())))
    title = f"text written after {written.compared} prompts, cut to equally many words"
    if written.compared < asked:
        title += f"; {asked - written.compared} of {asked} left out, where a text has less than 8 words"
    sizes = ("repeated 2-grams", "3-grams", "4-grams")
    header = ["", *sizes, "longest repeat", "distinct-1", "distinct-2", "distinct-3"]
    rows = [
        [
            name,
            *(f"{one.value:.1%} ± {(one.high - one.low) / 2:.1%}" for one in figures.repeated.values()),
            f"{figures.longest_repeat.value:.1f} words",
            *(f"{share:.3f}" for share in figures.distinct.values()),
        ]
        for name, figures in written.repetition.items()
    ]
    return title, header, rows
