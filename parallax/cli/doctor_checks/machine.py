import os
import platform
import shutil
from pathlib import Path

from parallax.cli.doctor_checks.finding import Finding


def check_machine() -> list[Finding]:
    """Python, PyTorch, devices, host memory and CPU."""
    import psutil
    import torch

    from parallax.runtime.device import cpu_has_bf16

    memory = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")
    capped = limit.read_text().strip() if limit.exists() else "max"
    cap = "" if capped == "max" else f", cgroup limit {int(capped) / 2**30:.1f} GiB"
    bf16 = "has" if cpu_has_bf16() else "has no"
    return [
        Finding("python", "ok", platform.python_version()),
        Finding("torch", "ok", f"{torch.__version__}, CUDA build {torch.version.cuda or 'none'}"),
        Finding("memory", "ok", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free{cap}"),
        Finding(
            "cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {bf16} bf16 instructions"
        ),
        *_devices(),
    ]


def check_attention() -> list[Finding]:
    """What computes each attention operator on the device, and what of the other backends; kernels are tried."""
    from parallax.attention.select import OPERATORS, choose_backend, explain
    from parallax.errors import BackendError
    from parallax.runtime.device import resolve_device

    device = resolve_device("auto")
    found = []
    for operator in OPERATORS:
        try:
            choice = choose_backend(operator, "auto", device)
            found.append(Finding(f"{operator} attention", "ok", f"{choice.backend.name}, {choice.reason}"))
        except BackendError as error:
            found.append(Finding(f"{operator} attention", "broken", str(error)))
        rows = explain(operator, device)
        found += [Finding(f"{operator} {b}", "ok" if why == "available" else "note", why) for b, why in rows]
    return found


def _devices() -> list[Finding]:
    import torch
    import torch.distributed as dist

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and torch.version.cuda:
            text = "nvidia-smi is here but PyTorch sees no GPU; install the PyTorch of this driver's CUDA"
            return [Finding("devices", "broken", text)]
        return [Finding("devices", "note", "no CUDA device; training runs on the CPU")]
    found = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        free, total = (part / 2**30 for part in torch.cuda.mem_get_info(index))
        name = torch.cuda.get_device_name(index)
        found.append(
            Finding(f"cuda:{index}", "ok", f"{name}, sm_{major}{minor}, {free:.1f} of {total:.1f} GiB free")
        )
    nccl = dist.is_nccl_available()
    text = "part of this PyTorch, not tried" if nccl else "not in this PyTorch; several GPUs cannot be used"
    return [*found, Finding("nccl", "ok" if nccl else "note", text)]
