"""The comparison of fine-tunings, on texts that take seconds."""

from pathlib import Path

import pytest

from evaluation.forgetting import fine_tunings, main
from parallax.metrics.journal import read_journal


@pytest.mark.slow
def test_every_way_of_fine_tuning_is_trained_once_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, line in (("a.txt", "The first text says this and that of {}.\n"), ("b.txt", "def f{0}(): {0}\n")):
        Path(name).write_text("".join(line.format(number) for number in range(3000)))
    short = {"--pretrain-steps": 3, "--steps": 2, "--seeds": 0, "--anchors": 0.5, "--eval-windows": 4}
    lengths = ["--tokenizer", "byte", *(str(part) for pair in short.items() for part in pair)]
    assert main(["a.txt", "b.txt", *lengths]) == 0
    first = capsys.readouterr().out
    rows = ["pretrained on A", "no anchor", "anchor 0.5", "embeddings and head frozen"]
    assert [line[: len(row)] for line, row in zip(first.splitlines()[-4:], rows, strict=True)] == rows

    runs = Path("runs/forgetting/seed-0")
    anchored = read_journal(runs / "anchor-0.5" / "journal.jsonl")
    assert anchored[-1]["val_loss_on/original"] > 0
    assert [record["step"] for record in anchored] == [2]
    before = {path: path.read_bytes() for path in runs.rglob("journal.jsonl")}
    assert main(["a.txt", "b.txt", *lengths]) == 0
    assert capsys.readouterr().out == first
    assert {path: path.read_bytes() for path in runs.rglob("journal.jsonl")} == before
    assert len(before) == 4


def test_the_fine_tunings_differ_in_their_anchor_or_in_what_is_frozen_only() -> None:
    variants = fine_tunings(Path("a"), [0.1])
    assert list(variants) == ["no anchor", "anchor 0.1", "embeddings and head frozen"]
    assert variants["anchor 0.1"] == {"data": {"anchor": {"path": "a", "ratio": 0.1}}}
