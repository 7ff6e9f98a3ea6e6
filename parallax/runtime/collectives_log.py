"""What PyTorch's flight recorder knows: the collectives that this process issued last, on whatever backend."""

import json
import os
from typing import Any

import torch.distributed as dist
from torch._C import _distributed_c10d as c10d

CONTROL_GROUP = "control"
"""Description of the group whose reductions say nothing about where the training is."""
_KEPT = "64"


def keep_recent_collectives() -> None:
    """Bounds the recorder to 64 entries, which are read in half a millisecond; `TORCH_FR_BUFFER_SIZE` wins.

    Only the first collective of the process reads the setting.
    """
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", _KEPT)


def recent_collectives() -> list[dict[str, Any]]:
    """The recorder's entries, oldest first: operation, sizes, types, group, and whether it is done.

    gloo's and NCCL's collectives are recorded apart and are merged by the time they were issued.
    """
    entries = _entries(c10d._dump_fr_trace_json(True, False))  # type: ignore[attr-defined]
    if dist.is_nccl_available():
        entries += _entries(c10d._dump_nccl_trace_json(True, False))  # type: ignore[attr-defined]
    return sorted(entries, key=lambda entry: entry["time_created_ns"])


def last_collective() -> str:
    """The newest collective of the training groups, as `all_reduce of 12x8 float in track (unfinished)`."""
    training = [entry for entry in recent_collectives() if entry["process_group"][1] != CONTROL_GROUP]
    return describe_collective(training[-1]) if training else "none"


def describe_collective(entry: dict[str, Any]) -> str:
    """One entry in words: operation, sizes, type, group."""
    sizes = " and ".join("x".join(map(str, size)) or "1" for size in entry["input_sizes"])
    types = "/".join(sorted({name.lower() for name in entry["input_dtypes"]}))
    group = entry["process_group"][1] or entry["process_group"][0]
    name = entry["profiling_name"].rpartition(":")[2]
    state = "" if entry["retired"] else " (unfinished)"
    return f"{name} of {sizes} {types} in {group}{state}"


def _entries(dump: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dump).get("entries", [])
    return found
