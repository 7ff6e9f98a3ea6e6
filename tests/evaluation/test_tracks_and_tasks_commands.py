"""`python -m evaluation.tracks` and `python -m evaluation.tasks` on a run of a few steps."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from probed_models import drawn_batches, drawn_model
from rich.console import Console
from test_task_items import prose

from evaluation.output import plain
from evaluation.tasks.__main__ import main as tasks
from evaluation.tracks.__main__ import main as tracks
from evaluation.tracks.probe import probe
from evaluation.tracks.section import section
from parallax.checkpoint.model_folder import is_model_folder
from parallax.config.load import check_config
from parallax.data.prepare import prepare
from parallax.train.command import train


def train_briefly(folder: Path, corpus: Path, **model: Any) -> None:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_size": 16, "vocab_size": 257, "max_seq_len": 64}
    settings = {
        "seed": 1,
        "run": {"name": folder.name, "dir": str(folder)},
        "model": {**sizes, **model},
        "data": {"path": str(corpus)},
        "train": {"max_steps": 3, "global_batch": 4, "precision": "fp32", "save_every": 3},
        "runtime": {"num_threads": 1, "device": "cpu"},
        "tracking": {"mlflow": False, "tensorboard": False},
    }
    assert train(check_config(settings, source="a test"), Console(quiet=True)) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, its corpora in bytes and in characters, and runs: two tracks, one track, characters."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "prose.txt").write_text(prose())
    prepare(folder / "prose.txt", folder / "corpus", val_fraction=0.3)
    prepare(folder / "prose.txt", folder / "chars", tokenizer="char", val_fraction=0.3)
    train_briefly(folder / "run", folder / "corpus")
    train_briefly(folder / "single", folder / "corpus", num_tracks=1)
    train_briefly(folder / "spelled", folder / "chars", num_layers=1)
    return folder


Run = Callable[..., str]


@pytest.fixture
def run(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in the world and returns what it printed; its exit code has to be the one given."""
    monkeypatch.chdir(world)

    def run(main: Callable[[list[str]], int], *arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == code
        shown = capsys.readouterr()
        if code:
            assert shown.out == ""
            [line] = shown.err.splitlines()
            return line
        assert shown.err == ""
        return shown.out

    return run


def test_tracks_prints_tables_and_writes_figures_a_page_and_pictures(run: Run, world: Path) -> None:
    printed = run(tracks, "run", "--tokens", 512, "--output", "looked")
    for part in (
        "2 tracks of 2 layers, 2 passes, swap between passes",
        "512 tokens in 8 windows",
        "tracks 0 and 1: how alike",
        "track 1, pass 2",
        "no swap after pass 1",
    ):
        assert part in printed
    found = json.loads((world / "looked" / "tracks.json").read_text())
    assert found["setting"]["windows"] == 8
    assert found["increments"][0]["name"] == "embedding"
    assert len(found["tracks"]["cka"]["value"][0]) == 2
    names = {path.name for path in (world / "looked").iterdir()}
    assert names == {
        "tracks.json",
        "tracks.html",
        "tracks.png",
        "passes.png",
        "map.png",
        "fuse.png",
        "ablations.png",
    }
    assert (world / "looked" / "map.png").read_bytes().startswith(b"\x89PNG")
    page = (world / "looked" / "tracks.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<svg") == 5


def test_only_what_is_asked_for_is_looked_at(run: Run, world: Path) -> None:
    printed = run(tracks, "run", "--tokens", 256, "--show", "fuse", "--output", "fused")
    assert "what the tracks add to the fuse" in printed
    assert "how alike" not in printed
    assert "no swap" not in printed
    assert {path.name for path in (world / "fused").iterdir()} == {"tracks.json", "tracks.html", "fuse.png"}


def test_the_page_holds_its_pictures_and_changes_and_loads_nothing_outside() -> None:
    model = drawn_model()
    found = probe(model, drawn_batches(model), source="<a & b>", data="noise")
    page = section(found)
    assert section(found) == page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        ElementTree.fromstring(picture)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids), "pictures of one page would read each other's clips"
    used = re.findall(r'(?:url\(|href=")#([^")]+)', page)
    assert len(used) > 50
    assert set(used) <= set(ids)
    assert not re.search(r"<script|<link|<style|src=|@import|href=\"(?!#|data:)", page)
    assert "Tracks of &lt;a &amp; b&gt;" in page
    assert "<a & b>" not in page


def test_one_track_is_refused_with_what_can_be_shown_and_then_shown(run: Run) -> None:
    line = run(tracks, "single", "--tokens", 128, code=2)
    assert line == (
        "error: single has one track, so there is nothing to compare it with (tracks, ablations); --show "
        "passes,fuse shows how its passes differ and what each adds"
    )
    printed = run(tracks, "single", "--tokens", 128, "--show", "passes,fuse")
    assert "1 track of 2 layers" in printed
    assert "track 0, pass 2" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ran"], r"error: ran: no such checkpoint or run folder; did you mean run\?"),
        (["run", "--show", "heads"], "error: --show heads: expected tracks, passes, fuse, ablations"),
        (
            ["run", "--tokens", "64"],
            r"error: .*corpus \(val\): 1 windows of text give no interval; give more text or",
        ),
        (["run", "--tokens", "0"], "error: --tokens 0: expected at least 1"),
        (["run", "--split", "test"], "error: --split test: expected val or train"),
        (["run", "--output", "prose.txt"], "error: --output prose.txt: File exists; name a folder that can be"),
    ],
)
def test_mistakes_with_tracks_are_one_line(arguments: list[str], message: str, run: Run) -> None:
    assert re.match(message, run(tracks, *arguments, code=2))


SHORT = ("--items", 12, "--texts", 2)


def test_tasks_prints_tables_and_writes_items_figures_and_texts(run: Run, world: Path) -> None:
    printed = run(tasks, "run", *SHORT, "--output", "asked")
    for part in (
        "cloze: last word",
        "no choices",
        "pairs: function word",
        "25.0%",
        "50.0%",
        "text written after",
    ):
        assert part in printed
    folder = world / "asked"
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert len(items) == 12 + 4 * 12 + 2
    report = json.loads((folder / "tasks.json").read_text())
    assert report["items_sha256"][:16] in printed
    assert {one["kind"] for one in report["accuracies"]} == {
        "last word",
        "swapped neighbours",
        "shuffled",
        "number agreement",
        "function word",
    }
    assert len((folder / "choices.jsonl").read_text().splitlines()) == 60
    assert set(json.loads((folder / "texts.jsonl").read_text().splitlines()[0])) == {
        "the text itself",
        "greedy",
        "temperature 0.8",
    }
    held_out = (world / "prose.txt").read_text()[-4000:]
    assert all(" ".join(item["context"].split()[-4:-1]) in " ".join(held_out.split()) for item in items[:12])


def test_another_tokenizer_is_asked_the_same_and_so_is_a_file_of_items(run: Run, world: Path) -> None:
    run(tasks, "run", *SHORT, "--tasks", "cloze,minimal_pairs", "--output", "bytes")
    run(tasks, "spelled", *SHORT, "--tasks", "cloze,minimal_pairs", "--output", "chars")
    bytes_items, chars_items = ((world / name / "items.jsonl").read_text() for name in ("bytes", "chars"))
    assert bytes_items == chars_items
    assert (world / "bytes" / "tasks.json").read_text() != (world / "chars" / "tasks.json").read_text()
    run(tasks, "run", "--items-file", "bytes/items.jsonl", "--output", "again")
    for name in ("items.jsonl", "choices.jsonl"):
        assert (world / "again" / name).read_text() == (world / "bytes" / name).read_text()


def test_of_a_file_that_the_run_was_trained_on_the_held_out_part_is_taken(run: Run, world: Path) -> None:
    line = run(tasks, "run", *SHORT, "--corpus", "prose.txt", code=2)
    assert "was trained on prose.txt; leave --corpus out" in line
    pairs = (*SHORT, "--tasks", "minimal_pairs")
    run(tasks, "run", *pairs, "--corpus", "prose.txt", "--held-out", 0.3, "--output", "tail")
    run(tasks, "run", *pairs, "--output", "own")
    assert (world / "tail" / "items.jsonl").read_text() == (world / "own" / "items.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ran"], r"error: ran: no such checkpoint or run folder; did you mean run\?"),
        (["run", "--tasks", "riddles"], "error: --tasks riddles: expected cloze, minimal_pairs, generation"),
        (
            ["run", "--items", "900"],
            r"error: the text gives \d+ of 900 items of cloze; give more text, or --items",
        ),
        (["run", "--texts", "1"], "error: --texts 1: expected at least 2"),
        (["run", "--temperatures", "warm"], "error: --temperatures warm: expected numbers"),
        (["run", "--temperatures", "-1", "--items", "5", "--texts", "2"], "error: temperature=-1.0: expected"),
        (["run", "--corpus", "other.txt"], "error: other.txt: no such file or folder"),
        (["run", "--corpus", "prose.txt", "--held-out", "1"], "error: --held-out 1.0: expected a share"),
        (["run", "--held-out", "0.1"], "error: --held-out 0.1: takes a part of --corpus; give that too"),
        (["run", "--items-file", "no.jsonl"], "error: no.jsonl: cannot be read"),
        (
            ["spelled", "--corpus", "umlauts.txt", "--tasks", "cloze", "--items", "3"],
            "error: the model's tokenizer has no token for 'ü'",
        ),
    ],
)
def test_mistakes_with_tasks_are_one_line(arguments: list[str], message: str, run: Run, world: Path) -> None:
    (world / "umlauts.txt").write_text(prose().replace("number", "nümber"))
    assert re.match(message, run(tasks, *arguments, code=2))


def test_a_model_folder_needs_a_corpus(run: Run, world: Path) -> None:
    from parallax.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["export", "run", "--output", "exported"])
    assert left.value.code in (0, None)
    assert is_model_folder(world / "exported")
    assert "came without a run, so no text is known" in run(tasks, "exported", code=2)
    printed = run(tasks, "exported", *SHORT, "--tasks", "cloze", "--corpus", "prose.txt")
    assert "items from prose.txt" in printed


def test_figures_become_plain_json() -> None:
    assert plain({1: (float("nan"), [float("inf"), 2.0])}) == {"1": [None, [None, 2.0]]}
