import torch


def multiprocessors(device: torch.device) -> int:
    """Of a GPU; 1 elsewhere, where Triton's interpreter runs programs one after another."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def shared_bytes(device: torch.device) -> int:
    """Shared memory that one program may have; elsewhere the least of the GPUs that kernels are made for."""
    if device.type != "cuda":
        return 99 * 1024
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)
