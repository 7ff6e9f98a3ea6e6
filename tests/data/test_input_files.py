import os
from pathlib import Path

import pytest

from parallax.data.input_files import find_text_files
from parallax.errors import DataError


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with text in several places, and things that are not for reading."""
    names = ["b.txt", "a.jsonl", "sub/deep/c.TXT", "sub/notes.md", ".hidden/x.txt", ".y.txt", "data.csv"]
    for name in names:
        file = tmp_path / "library" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("text\n")
    return tmp_path / "library"


def names_of(files: list[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_a_folder_stands_for_every_text_file_below_it_in_the_order_of_paths(library: Path):
    assert names_of(find_text_files(library), library) == ["a.jsonl", "b.txt", "sub/deep/c.TXT"]


def test_patterns_files_and_folders_are_put_together_and_each_file_is_read_once(
    library: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(library)
    files = find_text_files(["*.txt", str(library / "b.txt"), "sub/../b.txt", "sub", "**/*.jsonl"])
    assert sorted(file.resolve() for file in files) == [
        library / "a.jsonl",
        library / "b.txt",
        library / "sub/deep/c.TXT",
    ]


def test_a_pattern_stands_for_files_and_passes_over_folders(library: Path):
    (library / "pictures").mkdir()
    assert names_of(find_text_files(library / "[abps]*[!c]*"), library) == ["a.jsonl", "b.txt"]
    with pytest.raises(DataError, match="matches no file"):
        find_text_files(library / "pict*")


def test_files_reached_by_a_link_keep_the_order_of_paths(library: Path):
    (library / "z.txt").symlink_to(library / "a.jsonl")
    assert names_of(find_text_files(library), library) == ["a.jsonl", "b.txt", "sub/deep/c.TXT"]


def test_the_order_of_the_inputs_does_not_matter(library: Path):
    inputs = [library / "b.txt", library / "a.jsonl"]
    assert find_text_files(inputs) == find_text_files(inputs[::-1])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(library: Path):
    odd = library / "part[1].txt"
    odd.write_text("text")
    assert find_text_files(odd) == [odd]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("b.text", r"b\.text: no such file or folder; did you mean .*b\.txt\?"),
        ("nothing/like/it", "no such file or folder; give a file"),
        ("*.text", "the pattern matches no file"),
        ("data.csv", r"cannot read \.csv; give \.txt, \.jsonl or \.parquet"),
        ("*.csv", r"cannot read \.csv"),
        ("other", r"holds no \.txt, \.jsonl or \.parquet file \(only others, such as picture\.png\)"),
        ("empty", r"holds no \.txt, \.jsonl or \.parquet file \(no file\)"),
    ],
)
def test_input_that_gives_no_text_file_is_refused_in_one_line(library: Path, name: str, complaint: str):
    (library / "empty").mkdir()
    (library / "other").mkdir()
    (library / "other" / "picture.png").touch()
    with pytest.raises(DataError, match=complaint) as caught:
        find_text_files(library / name)
    assert "\n" not in str(caught.value)


def test_no_input_at_all_is_refused():
    with pytest.raises(DataError, match="no input was given"):
        find_text_files([])


def test_nothing_but_empty_files_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    with pytest.raises(DataError, match=r"a\.txt and 1 more: empty"):
        find_text_files(tmp_path)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="not a regular file"):
        find_text_files(tmp_path / "pipe.txt")


def test_a_folder_that_may_not_be_listed_is_an_error_rather_than_empty(
    library: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot be listed: Permission denied"):
        find_text_files(library)
