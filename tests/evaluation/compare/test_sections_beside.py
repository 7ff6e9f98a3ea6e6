"""What was found of single models, in the comparison's report."""

import json
from pathlib import Path

import pytest
from run_folders import write_run

from evaluation.compare.command import main
from evaluation.jackknife import Estimate
from evaluation.tasks.choices import Accuracy, Share
from evaluation.tasks.items import Item
from evaluation.tasks.measure import TaskReport
from evaluation.tasks.write import write_report
from evaluation.tracks.found import Ablated, Found, Setting
from evaluation.tracks.write import write_found

Output = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "one", [2.0]), write_run(tmp_path / "two", [2.1], lr=2e-3)]


def write_tracks(model: str, folder: Path) -> None:
    setting = Setting(model, "some text", 2, 2, 1, True, 64, 2)
    whole, without = Estimate(2.0, 1.9, 2.1), Estimate(2.3, 2.2, 2.4)
    ablated = Ablated("no swap", without, Estimate(0.3, 0.2, 0.4))
    write_found(Found(setting, whole, ablations=(ablated,)), folder)


def write_tasks(model: str, folder: Path) -> None:
    accuracy = Accuracy("cloze", "last word", 40, Share(0.6, 0.4, 0.8), 0.25, 1.5)
    items = [Item("cloze", "last word", "a b", ("c", "d"), 0)]
    write_report(TaskReport(model, "held-out text", "e" * 64, (accuracy,), None, None, ()), items, folder)


def compare(runs: list[Path], output: Path, *more: object) -> str:
    assert main(["--runs", *map(str, runs), "--output", str(output), *map(str, more)]) == 0
    return (output / "report.html").read_text()


def test_what_lies_in_run_folders_and_what_is_named_is_in_the_report_once(
    runs: list[Path], tmp_path: Path, capsys: Output
) -> None:
    before = compare(runs, tmp_path / "before")
    write_tracks("model-two", runs[1] / "tracks")
    write_tasks("model-two", runs[1])
    write_tracks("model-else", tmp_path / "elsewhere")
    html = compare(runs, tmp_path / "after", "--with", tmp_path / "elsewhere", runs[1] / "tracks")
    places = [html.index(f"<h2>{name}</h2>") for name in ("Tracks of model-two", "Tasks of model-two")]
    assert places == sorted(places)
    assert places[-1] < html.index("<h2>Tracks of model-else</h2>")
    assert html.count('<section class="tracks">') == 2
    assert html.count("<svg") == before.count("<svg") + 3
    assert f"with     {runs[1] / 'tracks' / 'tracks.html'}\n" in capsys.readouterr().out
    assert html == compare(runs, tmp_path / "again", "--with", tmp_path / "elsewhere")


def test_the_digest_knows_the_sections_and_not_their_places(runs: list[Path], tmp_path: Path) -> None:
    def digest(*more: object) -> str:
        compare(runs, tmp_path / "out", *more)
        return str(json.loads((tmp_path / "out" / "report.json").read_text())["sha256"])

    for folder, model in (("a", "m"), ("b", "m"), ("c", "n")):
        write_tracks(model, tmp_path / folder)
    with_a, with_b, with_c = (digest("--with", tmp_path / folder) for folder in "abc")
    assert with_a == with_b
    assert len({digest(), with_a, with_c}) == 3


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (None, "holds neither tracks.html nor tasks.html; `python -m evaluation.tracks RUN --output "),
        ("<p>a page of something else</p>", "expected a section as `python -m evaluation.tracks RUN --output "),
        ('<section class="tracks"><script src="x"></script></section>', "expected a section as "),
    ],
)
def test_a_folder_without_a_section_is_refused(
    runs: list[Path], tmp_path: Path, capsys: Output, page: str | None, said: str
) -> None:
    (tmp_path / "beside").mkdir()
    if page is not None:
        (tmp_path / "beside" / "tracks.html").write_text(page)
    assert main(["--runs", *map(str, runs), "--with", str(tmp_path / "beside")]) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert said in text.err
    assert text.err.count("\n") == 1
