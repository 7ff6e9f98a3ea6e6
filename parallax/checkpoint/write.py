import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from parallax.checkpoint.manifest import MANIFEST_FILE, FileRecord, build_manifest, write_manifest
from parallax.checkpoint.tensor_file import save_tensors
from parallax.runtime.files import file_sha256, sync_path

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
TENSORS_SUFFIX = ".safetensors"
_RESERVED = {STATE_FILE, MANIFEST_FILE}
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
    write_files(folder, step, {MODEL_FILE: weights, OPTIMIZER_FILE: optimizer}, checkpoint_texts(state, texts))


def checkpoint_texts(state: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a checkpoint, the state among them, by file name.

    Raises:
        TypeError: `state` holds what JSON cannot.
        ValueError: a text's name is taken or is not a plain file name.
    """
    for name in texts:
        if name in _RESERVED or name.endswith(TENSORS_SUFFIX) or name in ("", "..") or Path(name).name != name:
            raise ValueError(f"{name!r} cannot be the name of a text in a checkpoint")
    return {STATE_FILE: json.dumps(dict(state), indent=2), **texts}


def write_files(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes files of tensors, then of text, into an empty folder, and the manifest of them last.

    Notes are texts that the manifest does not list: people may change them.
    """
    for name, text in notes.items():
        (folder / name).write_bytes(text.encode())
    write_manifest(folder, build_manifest(step, write_recorded(folder, tensors, texts)))


def write_recorded(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, FileRecord]:
    """Writes files of tensors, then of text, to the disk, and returns what was written.

    While one file is written, those before it are hashed and flushed by other threads, so that the whole
    takes about as long as the disk needs for the bytes.

    Args:
        folder: exists.
        tensors: by file name and tensor name.
        texts: by file name.
        metadata: goes into the head of every file of tensors.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        finishing = [
            (path.name, pool.submit(_record, path), pool.submit(sync_path, path))
            for path in _write_each(folder, tensors, texts, metadata)
        ]
        files = {}
        for name, record, flushed in finishing:
            flushed.result()
            files[name] = record.result()
    return files


def _write_each(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    metadata: Mapping[str, str],
) -> Iterator[Path]:
    """Writes one file after the other and yields its path once it is written."""
    for name, named_tensors in tensors.items():
        save_tensors(folder / name, named_tensors, metadata)
        yield folder / name
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
        yield folder / name


def _record(path: Path) -> FileRecord:
    return FileRecord(size_bytes=path.stat().st_size, sha256=file_sha256(path))
