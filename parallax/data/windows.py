from typing import final

from parallax.data.hashing import hash_integers
from parallax.data.token_split import TokenSplit
from parallax.data.tokenizer import IdArray
from parallax.errors import DataError

_OFFSET_SALT = 0x0FF5E7


@final
class Windows:
    """A split cut into training windows of T + 1 tokens at stride T, across documents.

    Window w of epoch e is the tokens [o + w T, o + (w + 1) T + 1): T inputs and, one further, T targets, so
    that neighbours share one token and no target is seen twice. The offset o is a pure function of (seed, e).

    With N tokens there are n = max(1, (N - T) div T) windows in every epoch, and o is drawn from
    [0, N - 1 - n T], which reaches from T - 1 to 2 T - 2 (less when N < 2 T). The partial windows before the
    first and after the last, fewer than 2 T targets together, are dropped in that epoch; as o moves, other
    epochs see them, and every token is met at every position of a window.

    Args:
        split: The tokens.
        max_seq_len: T.
        seed: Of the offsets.

    Raises:
        DataError: the split has fewer than T + 1 tokens.
    """

    def __init__(self, split: TokenSplit, max_seq_len: int, seed: int) -> None:
        num_tokens = split.num_tokens
        if num_tokens < max_seq_len + 1:
            raise DataError(
                f"{split.source}: {num_tokens} tokens are fewer than one window of max_seq_len + 1 = "
                f"{max_seq_len + 1}; give more text, or set model.max_seq_len={max(num_tokens - 1, 1)} or less"
            )
        self.max_seq_len = max_seq_len
        self.num_windows = max(1, (num_tokens - max_seq_len) // max_seq_len)
        self._split = split
        self._seed = seed
        self._num_offsets = num_tokens - self.num_windows * max_seq_len

    def offset(self, epoch: int) -> int:
        """Tokens left out before the first window of an epoch."""
        return hash_integers(self._seed, _OFFSET_SALT, epoch) % self._num_offsets

    def read(self, epoch: int, window: int) -> IdArray:
        """(T + 1,) token ids of a window."""
        if not 0 <= window < self.num_windows:
            raise IndexError(f"window {window} of {self.num_windows}")
        return self._split.read(self.offset(epoch) + window * self.max_seq_len, self.max_seq_len + 1)
