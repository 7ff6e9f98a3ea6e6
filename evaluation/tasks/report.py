from rich.console import Console

from evaluation.jackknife import Estimate
from evaluation.output import NamedTable, print_tables
from evaluation.tasks.choices import Share
from evaluation.tasks.exact import ExactMatch
from evaluation.tasks.items import PAIRS
from evaluation.tasks.measure import TaskReport
from evaluation.tasks.repetition import DISTINCT_SIZES, REPEATED_SIZES
from evaluation.tasks.write_text import Written

_SHORT = {PAIRS: "pairs"}


def print_report(console: Console, report: TaskReport) -> None:
    """All figures, as tables."""
    console.print(f"{report.model}\nitems from {report.text}, sha256 {report.items_sha256[:16]}")
    print_tables(console, tables(report))


def tables(report: TaskReport) -> list[NamedTable]:
    """All figures."""
    shown: list[NamedTable] = []
    rows = [
        [
            f"{_SHORT.get(one.suite, one.suite)}: {one.kind}",
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
        "cloze: last word, no choices",
        f"{exact.items}",
        *_share(exact.share),
        f"{exact.commonest:.1%}",
        "",
    ]


def _share(share: Share) -> tuple[str, str]:
    return f"{share.value:.1%}", f"{share.low:.1%} to {share.high:.1%}"


def _written_table(written: Written) -> NamedTable:
    asked = len(next(iter(written.texts.values())))
    title = f"text written after {written.compared} prompts, cut to equally many words"
    if written.compared < asked:
        title += f"; {asked - written.compared} of {asked} left out, where a text has less than 8 words"
    columns = written.repetition.values()
    rows = [
        [f"repeated {size}-grams", *(_percent(one.repeated[size]) for one in columns)] for size in REPEATED_SIZES
    ]
    rows.append(["longest repeat, words", *(f"{one.longest_repeat.value:.1f}" for one in columns)])
    rows += [[f"distinct-{size}", *(f"{one.distinct[size]:.3f}" for one in columns)] for size in DISTINCT_SIZES]
    return title, ["", *written.repetition], rows if columns else []


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ± {(estimate.high - estimate.low) / 2:.1%}"
