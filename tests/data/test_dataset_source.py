"""Input through the `datasets` library, from local files of the layouts that the hub has."""

import json
from pathlib import Path

import datasets
import pytest

from parallax.data.dataset_source import DatasetSource
from parallax.data.prepare import prepare
from parallax.errors import DataError, UnfinishedError

TEXTS = [f"Row {n} says {n * n}." for n in range(400)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is asked of the network, and nothing kept in the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def fingerprint(tmp_path: Path) -> str:
    """Of the corpus of the same texts as .jsonl."""
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return prepare(tmp_path / "t.jsonl", tmp_path / "expected").fingerprint


@pytest.mark.parametrize("layout", ["parquet", "jsonl", "arrow"])
def test_a_folder_of_data_files_gives_the_corpus_of_its_texts(tmp_path: Path, layout: str, fingerprint: str):
    folder = tmp_path / "set"
    folder.mkdir()
    table = datasets.Dataset.from_dict({"text": TEXTS, "n": list(range(400))})
    if layout == "parquet":
        table.to_parquet(folder / "train-00000-of-00001.parquet")
        datasets.Dataset.from_dict({"text": ["other"]}).to_parquet(folder / "validation-00000-of-00001.parquet")
    elif layout == "jsonl":
        table.to_json(folder / "train.jsonl")
    else:
        table.save_to_disk(tmp_path / "saved")
        next((tmp_path / "saved").glob("*.arrow")).rename(folder / "train.arrow")
    meta = prepare(f"datasets:{folder}", tmp_path / "out")
    assert meta.fingerprint == fingerprint
    assert meta.inputs == (f"datasets:{folder}",)


def test_another_split_and_column_can_be_named(tmp_path: Path):
    datasets.Dataset.from_dict({"body": ["one", "two"]}).to_parquet(tmp_path / "set" / "validation.parquet")
    meta = prepare(
        f"datasets:{tmp_path / 'set'}",
        tmp_path / "out",
        val_fraction=0,
        text_field="body",
        dataset_split="validation",
    )
    assert (meta.train.documents, meta.train.text_bytes) == (2, 6)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("datasets:", {}, "no name; give one such as datasets:roneneldan/TinyStories"),
        ("datasets:roneneldan/TinyStories", {}, "could not be read: .*that the hub can be reached"),
        ("datasets:{set}", {"dataset_split": "tset"}, "could not be read: .*tset"),
        ("datasets:{set}", {"text_field": "body"}, r"no column 'body' \(it has 'text', 'n'\)"),
        ("datasets:{set}", {"text_field": "n"}, r"row 1: column 'n' holds '0', expected text"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_leaves_nothing(
    tmp_path: Path, name: str, options: dict[str, str], said: str
):
    datasets.Dataset.from_dict({"text": TEXTS, "n": list(range(400))}).to_parquet(
        tmp_path / "set" / "train.parquet"
    )
    with pytest.raises(DataError, match=said) as caught:
        prepare(name.format(set=tmp_path / "set"), tmp_path / "out", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_data_set_is_not_mixed_with_files(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\nmore\n")
    with pytest.raises(DataError, match="a data set cannot be mixed with other input; give it alone"):
        prepare([tmp_path / "a.txt", "datasets:set"], tmp_path / "out")


def test_a_stream_that_breaks_off_is_work_to_be_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def rows(*_: object) -> object:
        yield {"text": "one"}
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(DatasetSource, "_load", rows)
    with pytest.raises(UnfinishedError, match="datasets:far: could not be read: reset by peer"):
        prepare("datasets:far", tmp_path / "out", val_fraction=0)
