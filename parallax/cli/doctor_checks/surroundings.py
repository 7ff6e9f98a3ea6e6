import os
import shutil
import tempfile
import time
from importlib import metadata
from pathlib import Path

from parallax.cli.doctor_checks.finding import Finding

_PACKAGES = ("deepspeed", "accelerate", "flash-attn", "mlflow", "transformers")
_STALE_SECONDS = 600
_LEAST_FREE = 2**30


def check_packages() -> list[Finding]:
    """Versions of the optional packages."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, "note", "not installed"))
    return found


def check_folders() -> list[Finding]:
    """Whether the folders that a run writes to take a file, and how much space is left."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = {
        "working folder": Path.cwd(),
        "temporary folder": Path(tempfile.gettempdir()),
        "HF_HOME": Path(os.environ.get("HF_HOME") or cache / "huggingface"),
        "TORCH_EXTENSIONS_DIR": extensions_folder(),
    }
    return [check_folder(name, folder) for name, folder in folders.items()]


def check_folder(name: str, folder: Path) -> Finding:
    """Writes a file into `folder`, or into the parent that it would be made in."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(name, "broken", f"{folder}: cannot write: {error.strerror}; choose another folder")
    text = f"{folder}: {free / 2**30:.1f} GiB free"
    return Finding(name, "ok" if free >= _LEAST_FREE else "note", text)


def extensions_folder() -> Path:
    """Where PyTorch builds extensions, DeepSpeed's operators among them."""
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "torch_extensions"


def check_compilers() -> list[Finding]:
    """What DeepSpeed's operators and torch.compile are built with, and locks that a killed build left."""
    found = []
    for tool in ("g++", "ninja"):
        path = shutil.which(tool)
        missing = "not on PATH; DeepSpeed's operators need it, g++ torch.compile as well"
        found.append(Finding(tool, "ok" if path else "note", path or missing))
    for lock in sorted(extensions_folder().glob("**/lock")):
        age = time.time() - lock.stat().st_mtime
        if age > _STALE_SECONDS:
            text = f"{age / 60:.0f} min old; the next build waits for it; if none is running: rm {lock}"
            found.append(Finding("stale build lock", "note", text))
    return found
