import json
from pathlib import Path

from torch import Tensor

from parallax.checkpoint.tensor_file import load_tensors
from parallax.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def read_folder_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a model folder, from one file or from shards with an index; mapped, not read.

    Raises:
        CheckpointError: no safetensors there, a shard is missing, or the index does not fit the shards.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return load_tensors(folder / WEIGHTS_FILE)
    index = folder / INDEX_FILE
    if not index.is_file():
        raise CheckpointError(
            f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}; save the model as safetensors "
            f"(transformers' save_pretrained does)"
        )
    places = _read_index(index)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        if not (folder / shard).is_file():
            raise CheckpointError(
                f"{folder / shard} is missing, and {INDEX_FILE} lists it; fetch the folder again"
            )
        held = load_tensors(folder / shard)
        expected = [name for name, place in places.items() if place == shard]
        absent = [name for name in expected if name not in held]
        if absent:
            raise CheckpointError(f"{folder / shard} lacks {absent[0]}, which {INDEX_FILE} places there")
        tensors |= {name: held[name] for name in expected}
    return tensors


def _read_index(index: Path) -> dict[str, str]:
    """Tensor name -> file name, none of which leads out of the folder."""
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        outside = [name for name in places.values() if Path(name).name != name or name in ("", "..")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index} is no index of shards: expected a weight_map of tensor to file") from None
    if outside:
        raise CheckpointError(f"{index} names the file {outside[0]!r}; expected files of its own folder")
    return dict(places)
