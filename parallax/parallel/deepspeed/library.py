import os
import warnings
from typing import Any

import torch

from parallax.errors import BackendError
from parallax.runtime.device import PrecisionName

INSTALL = "pip install 'deepspeed==0.19.8' ninja"
"""What brings the version that this engine was tested with."""


def import_deepspeed(device: torch.device) -> Any:
    """The library, set up for a device; it is imported here and nowhere earlier.

    Raises:
        BackendError: it is not installed, or cannot be imported.
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # It places everything on the device of this number.
    os.environ["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", str(device.index or 0))
    try:
        import deepspeed
    except ImportError as error:
        raise BackendError(
            f"parallel.engine=deepspeed needs DeepSpeed, which cannot be imported ({error}); {INSTALL}, or set "
            f"parallel.engine=native"
        ) from None
    # Asked which of its operators could be compiled, it tries them all. The one that it looks for by this list,
    # all-reduce through shared memory, takes minutes to compile and only speeds up gloo, the transport of tests.
    deepspeed.ops.__compatible_ops__ = {}
    # PyTorch 2.13 renamed a collective; thousands of lines would say so.
    warnings.filterwarnings("ignore", message=".*(all_gather_into|reduce_scatter)_tensor", category=FutureWarning)
    return deepspeed


def check_precision(library: Any, precision: PrecisionName) -> None:
    """Looks whether DeepSpeed runs a precision on its device.

    Raises:
        BackendError: it does not.
    """
    accelerator = library.accelerator.get_accelerator()
    runs = {"fp32": True, "bf16": accelerator.is_bf16_supported(), "fp16": accelerator.is_fp16_supported()}
    if not runs[precision]:
        others = ", ".join(name for name, supported in runs.items() if supported)
        raise BackendError(
            f"train.precision={precision}: DeepSpeed does not run it on this {accelerator.device_name()}; choose "
            f"of {others}, or set parallel.engine=native"
        )
