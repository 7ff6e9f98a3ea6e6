import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix64(values: UInt64Array) -> UInt64Array:
    """splitmix64's step: a bijection on 64-bit integers whose output bits each depend on all input bits.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Arithmetic is
    modulo 2^64; `values` must be an array, since numpy warns of overflow in scalars.
    """
    z = values + np.uint64(_STEP)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def hash_integers(*numbers: int) -> int:
    """A 64-bit hash of a sequence of integers, the same on every machine: each is mixed into the one before.

    Of one number it is `mix64`, in Python's integers, which for a single value are faster than arrays.
    """
    state = 0
    for number in numbers:
        z = ((state ^ (number & _MASK)) + _STEP) & _MASK
        z = ((z ^ (z >> 30)) * _FIRST) & _MASK
        z = ((z ^ (z >> 27)) * _SECOND) & _MASK
        state = z ^ (z >> 31)
    return state
