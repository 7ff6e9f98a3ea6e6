"""The comparison's report, as a browser shows it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from watched_page import WatchedPage

from evaluation.compare.command import main

Opener = Callable[..., WatchedPage]
_COLUMNS_80 = 640
"""Pixels that 80 columns of a terminal take."""


@pytest.fixture(scope="module")
def report(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on the four runs."""
    folder = tmp_path_factory.mktemp("report")
    runs = sorted(map(str, trained.glob("runs/loops*")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        assert main(["--runs", *runs, "--by", "flops", "--output", str(folder / "out")]) == 0
    return (folder / "out" / "report.html").as_uri()


def test_the_report_draws_every_picture_and_loads_nothing(report: str, open_page: Opener) -> None:
    shown = open_page(report)
    text = shown.page.locator("body").inner_text()
    assert "num_loops=2 against num_loops=1: " in text
    assert "nats), 2 paired seeds" in text or " nats, 2 paired seeds" in text
    assert shown.page.locator("figure svg").count() == 3
    for figure in shown.page.locator("figure").all():
        drawn = figure.locator("svg")
        box = drawn.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 50
        assert drawn.locator("path").count() > 10
    lines = shown.page.evaluate(
        "[...document.querySelectorAll('#curves svg [id*=line2d] path')]"
        ".filter(line => line.getTotalLength() > 50).length"
    )
    assert lines >= 2
    assert (shown.errors, shown.blocked) == ([], [])
    shown.keep_screenshot("comparison-report")


def test_the_report_fits_a_narrow_window(report: str, open_page: Opener) -> None:
    shown = open_page(report, width=_COLUMNS_80)
    widest = shown.page.evaluate("document.documentElement.scrollWidth")
    assert widest <= _COLUMNS_80
    shown.keep_screenshot("comparison-report-narrow")
