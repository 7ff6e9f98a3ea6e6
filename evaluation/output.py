from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parallax.errors import ConfigError
from parallax.runtime.files import explain_disk_full


def plain(value: Any) -> Any:
    """Figures as JSON has them: named tuples are objects, arrays are lists, what is not finite is null."""
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def make_output_folder(folder: Path) -> None:
    """Makes the folder that `--output` names, unless it is there.

    Raises:
        ConfigError: the name, or one above it, is a file's, or it may not be made.
        DiskFullError: no room.
    """
    try:
        with explain_disk_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder}: {error.strerror}; name a folder that can be written") from None
