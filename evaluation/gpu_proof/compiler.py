import shutil
from importlib.util import find_spec

import torch


def why_no_compiler(device: torch.device) -> str | None:
    """Why torch.compile cannot run here, or None."""
    if device.type == "cpu":
        return None if shutil.which("g++") else "torch.compile needs the C++ compiler g++ on a CPU"
    if find_spec("triton") is None:
        return "torch.compile needs the package triton on a GPU"
    if not any(shutil.which(name) for name in ("gcc", "cc", "clang")):
        return "triton needs a C compiler, gcc or clang"
    return None
