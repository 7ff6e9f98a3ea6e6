import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

import parallax
from parallax.errors import CheckpointError
from parallax.runtime.files import file_sha256

MANIFEST_FILE = "manifest.json"
WHOLE_FORMAT = 1
"""One file of weights and one of optimizer state."""
SHARDED_FORMAT = 2
"""Such files of every rank, each with the rows that it held."""
FORMAT_VERSION = SHARDED_FORMAT
_CHECKSUM = "checksum"
_HASH_THREADS = 4


class DamagedCheckpointError(CheckpointError):
    """A checkpoint folder is incomplete, or a file in it is not what was saved."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"{folder} is damaged: {reason}; name another checkpoint, or the run folder for its newest good one"
        )
        self.folder, self.reason = folder, reason

    def __reduce__(self) -> tuple[type[Self], tuple[Path, str]]:
        """Ranks tell each other of it."""
        return type(self), (self.folder, self.reason)


class FileRecord(BaseModel):
    """What a file of a checkpoint must be."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size_bytes: int
    sha256: str
    """Of the whole file, in hexadecimal."""


class Manifest(BaseModel):
    """The last file written into a checkpoint: what it consists of. A folder without one is half-written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: int
    """Raised when an older Parallax could no longer read the files."""
    step: int
    """Optimizer steps done when it was saved."""
    libraries: dict[str, str]
    """Versions that wrote it."""
    files: dict[str, FileRecord]
    """By name; files that are not listed are no part of the checkpoint."""


def build_manifest(step: int, files: Mapping[str, FileRecord], format_version: int = WHOLE_FORMAT) -> Manifest:
    """The manifest of files written by this process, and by ranks of the same versions."""
    libraries = {"python": platform.python_version(), "parallax": parallax.__version__}
    libraries |= {name: version(name) for name in ("torch", "safetensors")}
    return Manifest(format_version=format_version, step=step, libraries=libraries, files=dict(files))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json, which carries a checksum of itself."""
    body = manifest.model_dump()
    text = json.dumps(body | {_CHECKSUM: _checksum(body)}, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks manifest.json alone.

    Raises:
        DamagedCheckpointError: there is none, or it is not what was written.
        CheckpointError: it was written in a newer format.
    """
    try:
        body = json.loads((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise DamagedCheckpointError(folder, f"it has no {MANIFEST_FILE}, so it was never completed") from None
    except OSError as error:
        raise DamagedCheckpointError(folder, f"{MANIFEST_FILE} cannot be read ({error.strerror})") from None
    except ValueError:
        raise DamagedCheckpointError(folder, f"{MANIFEST_FILE} is not JSON") from None
    if not isinstance(body, dict) or body.pop(_CHECKSUM, None) != _checksum(body):
        raise DamagedCheckpointError(folder, f"{MANIFEST_FILE} does not match its own checksum")
    # Only a text that is whole can be believed about its version.
    found = body.get("format_version")
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint format {found}, and this Parallax {parallax.__version__} reads up to "
            f"{FORMAT_VERSION}; use a newer Parallax"
        )
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise DamagedCheckpointError(folder, f"{MANIFEST_FILE}: {error.errors()[0]['msg']}") from None


def is_complete(folder: Path) -> bool:
    """Whether the manifest is there and whole and every file has its size; contents are not read."""
    try:
        check_outline(folder)
    except DamagedCheckpointError:
        return False
    return True


def verify_checkpoint(folder: Path) -> Manifest:
    """Reads every byte of a checkpoint and compares it with the manifest.

    Raises:
        DamagedCheckpointError: names the file and what is wrong with it.
        CheckpointError: it was written in a newer format.
    """
    manifest = check_outline(folder)
    verify_files(folder, manifest, manifest.files)
    return manifest


def check_outline(folder: Path) -> Manifest:
    """The manifest of a folder in which every file has its size; contents are not read.

    Raises:
        DamagedCheckpointError: names the file and what is wrong with it.
        CheckpointError: it was written in a newer format.
    """
    manifest = read_manifest(folder)
    _check_sizes(folder, manifest)
    return manifest


def verify_files(folder: Path, manifest: Manifest, names: Collection[str]) -> None:
    """Reads every byte of some of the files and compares them with the manifest.

    Raises:
        DamagedCheckpointError: names the file and what is wrong with it.
    """
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        for name, sha256 in zip(names, pool.map(lambda name: _read_sha256(folder, name), names), strict=True):
            wanted = manifest.files[name].sha256
            if sha256 != wanted:
                raise DamagedCheckpointError(
                    folder, f"the SHA-256 of {name} is {sha256[:12]}…, not {wanted[:12]}… as saved"
                )


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    for name, record in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except FileNotFoundError:
            raise DamagedCheckpointError(folder, f"{name} is missing") from None
        except OSError as error:
            raise DamagedCheckpointError(folder, f"{name} cannot be read ({error.strerror})") from None
        if size != record.size_bytes:
            raise DamagedCheckpointError(folder, f"{name} has {size:,} bytes, not {record.size_bytes:,} as saved")


def _read_sha256(folder: Path, name: str) -> str:
    try:
        return file_sha256(folder / name)
    except OSError as error:
        raise DamagedCheckpointError(folder, f"{name} cannot be read ({error.strerror})") from None


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
