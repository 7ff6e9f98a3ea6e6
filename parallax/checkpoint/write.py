import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from parallax.checkpoint.manifest import MANIFEST_FILE, FileRecord, build_manifest, write_manifest
from parallax.checkpoint.tensor_file import save_tensors
from parallax.runtime.files import file_sha256, sync_path

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
_RESERVED = {MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, MANIFEST_FILE}
_THREADS = 4


def write_checkpoint(
    folder: Path,
    step: int,
    *,
    weights: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    texts: Mapping[str, str],
) -> None:
    """Writes the files of a checkpoint into an empty folder, the manifest last.

    Args:
        folder: exists and is empty.
        step: optimizer steps done.
        weights: by parameter name.
        optimizer: by state and parameter name (see `optimizer_tensors`).
        state: JSON values.
        texts: file name -> content.

    Raises:
        TypeError: `state` holds what JSON cannot.
        ValueError: a text's name is taken or is not a plain file name.
    """
    for name in texts:
        if name in _RESERVED or name in ("", "..") or Path(name).name != name:
            raise ValueError(f"{name!r} cannot be the name of a text in a checkpoint")
    all_texts = {STATE_FILE: json.dumps(dict(state), indent=2), **texts}
    write_files(folder, step, {MODEL_FILE: weights, OPTIMIZER_FILE: optimizer}, all_texts)


def write_files(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, str]
) -> None:
    """Writes files of tensors, then of text, into an empty folder, and the manifest of them last.

    While one file is written, those before it are hashed and flushed by other threads, so that the whole
    takes about as long as the disk needs for the bytes.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        finishing = [
            (path.name, pool.submit(_record, path), pool.submit(sync_path, path))
            for path in _write_each(folder, tensors, texts)
        ]
        files = {}
        for name, record, flushed in finishing:
            flushed.result()
            files[name] = record.result()
    write_manifest(folder, build_manifest(step, files))


def _write_each(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, str]
) -> Iterator[Path]:
    """Writes one file after the other and yields its path once it is written."""
    for name, named_tensors in tensors.items():
        save_tensors(folder / name, named_tensors)
        yield folder / name
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
        yield folder / name


def _record(path: Path) -> FileRecord:
    return FileRecord(size_bytes=path.stat().st_size, sha256=file_sha256(path))
