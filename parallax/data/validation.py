from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import IdArray
from parallax.errors import DataError
from parallax.model.head import IGNORE_INDEX

_NO_WINDOW = -1


def validation_batches(
    split: TokenSplit,
    *,
    max_seq_len: int,
    batch_size: int,
    max_windows: int | None = None,
    ignore_index: int = IGNORE_INDEX,
    dp: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, each (B, T) int64, that predict every token of a split but the first exactly once.

    Window w has the inputs [w T, (w + 1) T) and the targets one further. The last one is filled up with 0 in
    the inputs and `ignore_index` in the targets. The last batch may have fewer rows.

    Bits per byte over the whole split are nll_sum / ln 2 / `split.num_bytes`. Over some windows with n
    valid targets the bytes are taken to be n * `split.bytes_per_token`.

    Args:
        split: The tokens.
        max_seq_len: T.
        batch_size: B.
        max_windows: Take that many windows, evenly spaced, always the same; all when None or not fewer.
        ignore_index: Target that the loss leaves out.
        dp: (number, count) of this rank among those that measure the same split together: every count-th window
            is its own. All get equally many batches, the last of which may predict nothing.

    Raises:
        DataError: the split has fewer than 2 tokens, so there is nothing to predict.
    """
    chosen = choose_windows(split, max_seq_len, max_windows)
    rank, count = dp
    filled = np.pad(chosen, (0, -chosen.size % count), constant_values=_NO_WINDOW)
    return _batches(split, filled[rank::count], max_seq_len, batch_size, ignore_index)


def choose_windows(split: TokenSplit, max_seq_len: int, max_windows: int | None) -> IdArray:
    """Indices of the windows that `validation_batches` takes, ascending.

    Raises:
        DataError: the split has fewer than 2 tokens.
    """
    if split.num_tokens < 2:
        raise DataError(f"{split.source}: {split.num_tokens} tokens leave nothing to predict; give more text")
    total = -(-(split.num_tokens - 1) // max_seq_len)
    count = total if max_windows is None else min(max_windows, total)
    # The middle of each of `count` equal parts, in integers so that it is the same everywhere.
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)


def _batches(
    split: TokenSplit, chosen: IdArray, max_seq_len: int, batch_size: int, ignore_index: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, chosen.size, batch_size):
        windows = chosen[first : first + batch_size].tolist()
        inputs = np.zeros((len(windows), max_seq_len), dtype=np.int64)
        targets = np.full((len(windows), max_seq_len), ignore_index, dtype=np.int64)
        for row, window in enumerate(windows):
            if window == _NO_WINDOW:
                continue
            start = window * max_seq_len
            tokens = split.read(start, min(max_seq_len + 1, split.num_tokens - start))
            inputs[row, : tokens.size - 1] = tokens[:-1]
            targets[row, : tokens.size - 1] = tokens[1:]
        yield torch.from_numpy(inputs), torch.from_numpy(targets)
