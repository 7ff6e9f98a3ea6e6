from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parallax.errors import CheckpointError

_FORMAT = {"format": "pt"}


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Writes named tensors as one safetensors file, their types and values unchanged.

    A tensor that stands under several names (tied weights) is stored once; the other names go into the
    file's metadata, alias -> stored name, as safetensors' own `save_model` has it. Tensors on the CPU are
    written from where they lie, without a copy. `metadata` goes into the head of the file.
    """
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[object, str] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        first = first_names.setdefault(_identity(tensor), name)
        if first != name:
            aliases[name] = first
            continue
        # safetensors refuses two tensors of one storage even where they do not overlap; a copy stands alone.
        storage = tensor.untyped_storage().data_ptr()
        stored[name] = (
            tensor.detach().clone(memory_format=torch.contiguous_format)
            if storage in storages
            else tensor.detach().contiguous()
        )
        storages.add(storage)
    save_file(stored, path, metadata=_FORMAT | aliases | dict(metadata))
    # safetensors makes its files readable by their owner alone; the folder has the mode that the umask gives.
    path.chmod(path.parent.stat().st_mode & 0o666)


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Reads what `save_tensors` wrote; a name and its aliases are the same tensor object.

    On the CPU the bytes are mapped and read when they are first touched; writing to the tensors leaves the
    file as it is.

    Raises:
        CheckpointError: not a safetensors file, or unreadable.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors: dict[str, Tensor] = file.get_tensors()
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from None
    aliases = {alias: name for alias, name in metadata.items() if name in tensors and alias not in tensors}
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def _identity(tensor: Tensor) -> object:
    """Equal for two tensors that are the same elements of the same memory."""
    if tensor.numel() == 0:
        return object()
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
