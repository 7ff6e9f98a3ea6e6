import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1


def mix64(values: UInt64Array) -> UInt64Array:
    """splitmix64's step: a bijection on 64-bit integers whose output bits each depend on all input bits.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Arithmetic is
    modulo 2^64; `values` must be an array, since numpy warns of overflow in scalars.
    """
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hash_integers(*numbers: int) -> int:
    """A 64-bit hash of a sequence of integers, the same on every machine and in every version."""
    state = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        state = mix64(state ^ np.uint64(number & _MASK))
    return int(state[0])
