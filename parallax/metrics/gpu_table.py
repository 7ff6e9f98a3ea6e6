import re

import torch

# Dense (without 2:4 sparsity) matrix-multiply peaks in TFLOP/s for 16-bit inputs accumulated in fp32, from
# NVIDIA's data sheets; where a sheet prints only the figure with sparsity, half of it. Names are those of
# `torch.cuda.get_device_name`; the first pattern that matches counts, so variants precede their family.
_DATA_CENTRE_TFLOPS = (
    (r"GH200\b", 989.4),  # the same die as the H100's
    (r"H200 NVL", 835.5),  # 1,671 with sparsity
    (r"H200\b", 989.4),  # 1,979 with sparsity
    (r"H100 NVL", 835.5),  # 1,671 with sparsity
    (r"H100 PCIe", 756.4),  # 1,513 with sparsity
    (r"H(100|800) .*HBM3|H100 SXM", 989.4),  # the SXM5 board is named "H100 80GB HBM3"
    (r"B200\b", 2250.0),  # HGX B200: 4.5 PFLOP/s a GPU with sparsity
    (r"A[18]00\b", 312.0),
    (r"A40\b", 149.7),
    (r"A30\b", 165.0),
    (r"A10G\b", 70.0),
    (r"A10\b", 125.0),
    (r"L40S\b", 362.05),
    (r"L40\b", 181.05),
    (r"L4\b", 121.0),  # 242 with sparsity
    (r"RTX A6000", 154.8),
    (r"RTX 6000 Ada", 364.2),  # 1,457 in fp8 with sparsity
)

# Before sm_80 the tensor cores know fp16 but not bf16.
_FP16_ONLY_TFLOPS = (
    (r"V100S-PCIE", 130.0),
    (r"V100-PCIE", 112.0),
    (r"V100-SXM", 125.0),
    (r"T4\b", 65.0),
)

# GeForce boards: name -> (streaming multiprocessors, boost clock in MHz). NVIDIA runs 16-bit products that
# accumulate in fp32 at half the rate there: 256 multiply-adds a clock and multiprocessor in Turing, Ampere,
# Ada and Blackwell. Multiprocessors x clock x 512 gives the figures of the architecture white papers
# (RTX 3090: 71.2, RTX 4090: 165.2, RTX 5090: 209.5 TFLOP/s). Boards sold under one name differ in their
# multiprocessors and are told apart by them; laptop boards run at clocks their makers choose and are left out.
_GEFORCE_FLOPS_PER_CLOCK = 512
_GEFORCE_BOARDS = {
    "RTX 5090": ((170, 2407),),
    "RTX 5080": ((84, 2617),),
    "RTX 5070 Ti": ((70, 2452),),
    "RTX 5070": ((48, 2512),),
    "RTX 4090": ((128, 2520),),
    "RTX 4080 SUPER": ((80, 2550),),
    "RTX 4080": ((76, 2505),),
    "RTX 4070 Ti SUPER": ((66, 2610),),
    "RTX 4070 Ti": ((60, 2610),),
    "RTX 4070 SUPER": ((56, 2475),),
    "RTX 4070": ((46, 2475),),
    "RTX 4060 Ti": ((34, 2535),),
    "RTX 4060": ((24, 2460),),
    "RTX 3090 Ti": ((84, 1860),),
    "RTX 3090": ((82, 1695),),
    "RTX 3080 Ti": ((80, 1665),),
    "RTX 3080": ((68, 1710), (70, 1710)),
    "RTX 3070 Ti": ((48, 1770),),
    "RTX 3070": ((46, 1725),),
    "RTX 3060 Ti": ((38, 1665),),
    "RTX 3060": ((28, 1777),),
    "RTX 3050": ((20, 1777), (18, 1470)),  # 8 GB, 6 GB
}
_GEFORCE_FP16_ONLY_BOARDS = {
    "RTX 2080 Ti": ((68, 1545),),
    "RTX 2080 SUPER": ((48, 1815),),
    "RTX 2080": ((46, 1710),),
    "RTX 2070 SUPER": ((40, 1770),),
    "RTX 2070": ((36, 1620),),
    "RTX 2060 SUPER": ((34, 1650),),
    "RTX 2060": ((30, 1680),),
}


def lookup_gpu_peak(name: str, num_multiprocessors: int, dtype: torch.dtype) -> float | None:
    """Dense peak in FLOP/s of an NVIDIA card for 16-bit products accumulated in fp32; None: not known.

    Args:
        name: as `torch.cuda.get_device_name` gives it.
        num_multiprocessors: as the device's properties give it; tells apart GeForce boards of one name.
        dtype: bfloat16 or float16; fp32 has no entry, since its rate depends on the TF32 setting.
    """
    # A slice of a card (MIG, vGPU) goes by the whole card's name.
    if dtype not in (torch.float16, torch.bfloat16) or "MIG" in name or "GRID" in name:
        return None
    fp16 = dtype == torch.float16
    if "GeForce" in name:
        boards = _GEFORCE_BOARDS | (_GEFORCE_FP16_ONLY_BOARDS if fp16 else {})
        board = re.sub(r" \d+GB$", "", name.rpartition("GeForce ")[2])
        return _geforce_peak(boards.get(board, ()), num_multiprocessors)
    for pattern, tflops in _DATA_CENTRE_TFLOPS + (_FP16_ONLY_TFLOPS if fp16 else ()):
        if re.search(rf"\b{pattern}", name):
            return tflops * 1e12
    return None


def _geforce_peak(boards: tuple[tuple[int, int], ...], num_multiprocessors: int) -> float | None:
    for multiprocessors, boost_mhz in boards:
        if multiprocessors == num_multiprocessors:
            return multiprocessors * boost_mhz * 1e6 * _GEFORCE_FLOPS_PER_CLOCK
    return None
