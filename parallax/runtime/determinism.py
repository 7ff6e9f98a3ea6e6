import os

import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def use_deterministic_kernels() -> None:
    """Makes every CUDA operation repeat itself bit for bit, or raise; call it before the first matrix product.

    cuBLAS repeats its sums only with a workspace of fixed size, which it reads from the environment once. A
    setting that the user made there wins.
    """
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
