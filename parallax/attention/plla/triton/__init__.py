"""Triton kernels of PLLA; they have never run on a GPU."""
