import json
from pathlib import Path
from typing import Any

from parallax.errors import CheckpointError


def read_json(path: Path, expected: str = "a file of JSON") -> Any:
    """What a JSON file beside weights holds.

    Args:
        path: of the file.
        expected: what the message asks for where there is none.

    Raises:
        CheckpointError: there is no such file, or it cannot be read as JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; expected {expected}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
