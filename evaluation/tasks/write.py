import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.output import make_output_folder, plain
from evaluation.pictures import html_page, to_png
from evaluation.tasks.items import Item, to_jsonl
from evaluation.tasks.measure import TaskReport
from evaluation.tasks.plots import draw_accuracies
from evaluation.tasks.section import section
from parallax.runtime.files import write_bytes_atomic, write_text_atomic


def write_report(report: TaskReport, items: Sequence[Item], folder: Path) -> list[Path]:
    """Writes the items, the figures, a page, every choice and every text; what had the same names is replaced.

    Raises:
        ConfigError: the folder cannot be made.
        DiskFullError: no room; every file is the old one or the new one.
    """
    make_output_folder(folder)
    contents = {
        "items.jsonl": to_jsonl(items),
        "tasks.json": json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n",
        "tasks.html": html_page(f"Tasks of {report.model}", section(report)),
        "choices.jsonl": _lines(
            {
                "suite": one.item.suite,
                "kind": one.item.kind,
                "bits_per_byte": one.bits_per_byte,
                "credit": one.credit,
            }
            for one in report.judged
        ),
    }
    if report.written:
        texts = report.written.texts
        contents["texts.jsonl"] = _lines(
            dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)
        )
    for name, content in contents.items():
        write_text_atomic(folder / name, content)
    written = [folder / name for name in contents]
    if report.accuracies:
        written.append(folder / "tasks.png")
        write_bytes_atomic(written[-1], to_png(draw_accuracies(report)))
    return written


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(plain(record), ensure_ascii=False) + "\n" for record in records)
