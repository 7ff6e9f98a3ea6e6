import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from parallax.errors import CheckpointError


def load_plain(path: Path) -> Any:
    """What `torch.save` wrote, provided it is tensors and plain values: no code in the file is ever run.

    Tensors of a file in the zip form, which torch has written since 1.6, are mapped, not read.

    Raises:
        CheckpointError: it holds other objects, or is not a file of `torch.save`.
    """
    try:
        with warnings.catch_warnings():
            # About other versions of the pickle format; if they cannot be read, an error follows.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch's message goes on with how to allow the objects, which is the one thing not to do.
        reason = str(error).strip().splitlines()
        named = next((line for line in reason if "GLOBAL" in line or "Unsupported" in line), "")
        raise CheckpointError(
            f"{path} holds pickled objects other than tensors and plain values, which could run code; nothing of "
            f"it was executed ({named.strip() or 'not plain data'}); save model.state_dict() as .safetensors, and "
            f"its configuration as JSON"
        ) from None
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # torch raises whatever the damage leads to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path} cannot be read as a file of torch.save: {reason[0]}") from None
