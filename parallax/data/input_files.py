import difflib
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from parallax.errors import DataError

TEXT_SUFFIXES = (".txt", ".jsonl", ".parquet")
_KINDS = ".txt, .jsonl or .parquet"

Inputs = str | Path | Sequence[str | Path]


def list_inputs(inputs: Inputs) -> list[str]:
    """One input or several, as a list of strings."""
    return [str(inputs)] if isinstance(inputs, str | Path) else [str(item) for item in inputs]


def find_text_files(inputs: Inputs) -> list[Path]:
    """The .txt, .jsonl and .parquet files that files, folders and patterns stand for, each once, sorted by path.

    A folder stands for every such file below it, names that start with a dot excepted; a pattern
    (`*`, `?`, `[…]`, `**`) for the files that it matches.

    Raises:
        DataError: an input matches nothing, or is a file of another kind, or every file is empty.
    """
    found = {file for item in list_inputs(inputs) for file in _expand(item)}
    if not found:
        raise DataError(f"no input was given; name a file ({_KINDS}), a folder of them, or a pattern")
    # A file reached by two ways, say a folder and a pattern, is read once.
    ordered = sorted({file.resolve(): file for file in sorted(found, reverse=True)}.values())
    if not any(file.stat().st_size for file in ordered):
        raise DataError(f"{_name_some(ordered)}: empty; give text to read")
    return ordered


def _expand(item: str) -> list[Path]:
    path = Path(item).expanduser()
    if path.exists():
        return _walk(path) if path.is_dir() else [_check_kind(path)]
    if not glob.has_magic(item):
        near = difflib.get_close_matches(path.name, _names_in(path.parent), 1)
        hint = (
            f"did you mean {path.parent / near[0]}?" if near else "give a file, a folder or a pattern that exists"
        )
        raise DataError(f"{item}: no such file or folder; {hint}")
    # Path.glob would refuse absolute patterns.
    matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    files = [_check_kind(match) for match in matches if not match.is_dir()]
    if not files:
        raise DataError(f"{item}: the pattern matches no file")
    return files


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    others: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                (found if name.lower().endswith(TEXT_SUFFIXES) else others).append(Path(parent, name))
    if not found:
        held = f"only others, such as {others[0].name}" if others else "no file"
        raise DataError(f"{folder}: holds no {_KINDS} file ({held})")
    return found


def _refuse(error: OSError) -> None:
    """Without this, `os.walk` passes over a folder it may not read as if it were empty."""
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")


def _check_kind(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: not a regular file; give a {_KINDS} file, or a folder of them")
    if not path.name.lower().endswith(TEXT_SUFFIXES):
        raise DataError(f"{path}: cannot read {path.suffix or 'a file without an ending'}; give {_KINDS} files")
    return path


def _names_in(folder: Path) -> Iterable[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _name_some(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
