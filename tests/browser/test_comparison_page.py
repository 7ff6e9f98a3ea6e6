"""The comparison's report, as a browser shows it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from watched_page import WatchedPage

from evaluation.compare.command import main
from evaluation.tracks.__main__ import main as look_at_tracks

Opener = Callable[..., WatchedPage]
_COLUMNS_80 = 640
"""Pixels that 80 columns of a terminal take."""

_WIDTHS_OF_IMAGES = """Promise.all([...document.querySelectorAll("svg image, img")].map(async shown => {
    const image = new Image()
    image.src = shown.currentSrc || shown.href.baseVal
    await image.decode()
    return image.naturalWidth
}))"""
"""Of the pictures of dots, once they are decoded; one that cannot be is an error."""

_TEXTS_CUT_OFF = """[...document.querySelectorAll("svg text")].filter(text => {
    const box = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect()
    const across = box.left < all.left - 2 || box.right > all.right + 2
    return across || box.top < all.top - 2 || box.bottom > all.bottom + 2
}).map(text => text.textContent)"""


@pytest.fixture(scope="module")
def report(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on the four runs, with a look at the tracks of one."""
    folder = tmp_path_factory.mktemp("report")
    runs = sorted(map(str, trained.glob("runs/loops*")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        looked_at = "runs/loops2-seed0"
        assert look_at_tracks([looked_at, "--tokens", "512", "--output", f"{looked_at}/tracks"]) == 0
        assert main(["--runs", *runs, "--by", "flops", "--output", str(folder / "out")]) == 0
    return (folder / "out" / "report.html").as_uri()


def test_the_report_draws_every_picture_and_loads_nothing(report: str, open_page: Opener) -> None:
    shown = open_page(report)
    text = shown.page.locator("body").inner_text()
    assert "num_loops=2 against num_loops=1: " in text
    assert "nats), 2 paired seeds" in text or " nats, 2 paired seeds" in text
    assert re.search(r"Tracks of \S*runs/loops2-seed0", text)
    assert shown.page.locator("figure[id] svg").count() == 3
    assert shown.page.locator("section.tracks figure svg").count() == 5
    for figure in shown.page.locator("figure").all():
        drawn = figure.locator("svg")
        box = drawn.bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 50
        assert drawn.locator("path").count() > 5
    lines = shown.page.evaluate(
        "[...document.querySelectorAll('#curves svg [id*=line2d] path')]"
        ".filter(line => line.getTotalLength() > 50).length"
    )
    assert lines >= 2
    assert shown.page.evaluate(_TEXTS_CUT_OFF) == []
    widths = shown.page.evaluate(_WIDTHS_OF_IMAGES)
    assert widths
    assert min(widths) > 0
    assert (shown.errors, shown.blocked) == ([], [])
    shown.keep_screenshot("comparison-report")
    shown.page.locator("section.tracks").evaluate("section => section.scrollIntoView()")
    shown.keep_screenshot("comparison-tracks")


def test_the_report_fits_a_narrow_window(report: str, open_page: Opener) -> None:
    shown = open_page(report, width=_COLUMNS_80)
    widest = shown.page.evaluate("document.documentElement.scrollWidth")
    assert widest <= _COLUMNS_80
    shown.keep_screenshot("comparison-report-narrow")
