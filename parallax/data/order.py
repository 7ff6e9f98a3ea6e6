from math import isqrt
from typing import final

import numpy as np
import numpy.typing as npt

from parallax.data.hashing import UInt64Array, hash_integers, mix64

_ROUNDS = 8

IntArray = npt.NDArray[np.int64]


@final
class SampleOrder:
    """Which window is sample i: a pure function of (seed, i) that visits every window once an epoch.

    Epoch e = i div n is a permutation P_e of the n windows, computed for single elements, so nothing of
    size n is ever held. P_e is a Feistel network over pairs (l, r) of Z_a x Z_b, where x = l b + r and a b is the
    smallest such product around sqrt(n) that is at least n; rounds alternate between

        l <- l + F(r) mod a        and        r <- r + F(l) mod b

    with F a hash keyed by (seed, e, round). Each round can be undone, so the network permutes [0, a b); an
    output of n or more is fed in again until it falls below n (cycle walking), which permutes [0, n).
    Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.

    Args:
        num_windows: n, at least 1.
        seed: Any integer; taken modulo 2^64.
    """

    def __init__(self, num_windows: int, seed: int) -> None:
        if num_windows < 1:
            raise ValueError(f"num_windows={num_windows} must be at least 1")
        self.num_windows = num_windows
        self._seed_key = np.uint64(hash_integers(seed))
        columns = isqrt(num_windows - 1) + 1
        self._columns = np.uint64(columns)
        self._rows = np.uint64(-(-num_windows // columns))

    def locate(self, sample_index: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """(epoch, window) of each sample, in the shape of `sample_index`, whose elements are at least 0."""
        index = np.asarray(sample_index, dtype=np.int64)
        if index.size and index.min() < 0:
            raise ValueError(f"sample index {index.min()} is negative")
        flat = index.reshape(-1)
        epoch, position = flat // self.num_windows, flat % self.num_windows
        window = self._permute(position.astype(np.uint64), epoch.astype(np.uint64))
        return epoch.reshape(index.shape), window.astype(np.int64).reshape(index.shape)

    def _permute(self, position: UInt64Array, epoch: UInt64Array) -> UInt64Array:
        key = mix64(self._seed_key ^ epoch)
        window = self._network(position, key)
        while (outside := window >= np.uint64(self.num_windows)).any():
            window[outside] = self._network(window[outside], key[outside])
        return window

    def _network(self, value: UInt64Array, key: UInt64Array) -> UInt64Array:
        left, right = value // self._columns, value % self._columns
        for number in range(_ROUNDS):
            round_key = mix64(key + np.uint64(number))
            if number % 2 == 0:
                left = (left + mix64(round_key ^ right) % self._rows) % self._rows
            else:
                right = (right + mix64(round_key ^ left) % self._columns) % self._columns
        return left * self._columns + right
