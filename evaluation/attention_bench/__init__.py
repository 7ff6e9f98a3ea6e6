"""Attention's kernels beside others' and beside what the hardware allows: what the two commands below share.

`python -m evaluation.bench_decode` and `python -m evaluation.bench_train`.
"""
