def resolve_batch(global_batch: int, micro_batch: int, data_parallel_size: int) -> int:
    """Gradient accumulation: global_batch / (micro_batch * data_parallel_size).

    Raises:
        ValueError: the division has a remainder; the message names the nearest valid triple.
    """
    if global_batch % (micro_batch * data_parallel_size) == 0:
        return global_batch // (micro_batch * data_parallel_size)
    best = nearest_triple(global_batch, micro_batch, data_parallel_size)
    ranks = f" on {data_parallel_size} data-parallel ranks" if data_parallel_size > 1 else ""
    raise ValueError(
        f"global_batch={global_batch} is not a multiple of micro_batch={micro_batch}{ranks}; nearest valid: "
        f"global_batch={best[0]}, micro_batch={best[1]}, accumulation={best[2]}"
    )


def accumulation_on_ranks(global_batch: int, micro_batch: int, data_parallel_size: int) -> int:
    """`resolve_batch` where a rank's share of the global batch may be smaller than a micro-batch, and is one then.

    Raises:
        ValueError: the division has a remainder; the message names the nearest valid triple.
    """
    share = max(global_batch // data_parallel_size, 1)
    return resolve_batch(global_batch, min(micro_batch, share), data_parallel_size)


def nearest_triple(global_batch: int, micro_batch: int, data_parallel_size: int) -> tuple[int, int, int]:
    """(global batch, micro-batch, accumulation) nearest to what was asked, the global batch kept if it can be.

    A valid global batch is a multiple of the ranks. Among its micro-batches that divide, the one nearest to
    `micro_batch` is taken; equal distances go to the smaller, which needs less memory.
    """
    lower = max(global_batch // data_parallel_size, 1)
    per_rank = min((lower, lower + 1), key=lambda n: (abs(n * data_parallel_size - global_batch), n))
    divisors = (d for d in range(1, per_rank + 1) if per_rank % d == 0)
    micro = min(divisors, key=lambda d: (abs(d - micro_batch), d))
    return per_rank * data_parallel_size, micro, per_rank // micro
