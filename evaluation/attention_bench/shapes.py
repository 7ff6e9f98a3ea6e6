from dataclasses import dataclass
from typing import Literal

from parallax.errors import ConfigError

Order = Literal["BHLD", "BLHD"]

_HEADS = tuple(2**power for power in range(12))
_LENGTHS = tuple(2**power for power in range(7, 16))
_WIDTHS = (64, 128)


@dataclass(frozen=True)
class Shape:
    """Of one attention: as many queries as keys in training, the last of them in decoding."""

    batch: int
    """B."""
    heads: int
    """H, of queries."""
    key_heads: int
    """G, of keys and values; divides H."""
    length: int
    """L, of keys."""
    width: int
    """D, of a head."""
    window: int | None = None
    """How many of the newest keys a query sees, its own among them; None: all up to its own."""

    def __str__(self) -> str:
        heads = f"H{self.heads}" if self.heads == self.key_heads else f"H{self.heads}/{self.key_heads}"
        window = "" if self.window is None else f" W{self.window}"
        return f"B{self.batch} {heads} L{self.length} D{self.width}{window}"

    def visible_pairs(self, queries: int) -> int:
        """Pairs of a query and a key it sees, for the last `queries` positions, of one head."""
        seen = self.length if self.window is None else min(self.window, self.length)
        first = self.length - queries + 1
        # Query number p, counted from one, sees min(p, seen) keys.
        rising = range(first, seen + 1)
        triangle = (rising.start + rising.stop - 1) * len(rising) // 2
        return triangle + (queries - len(rising)) * seen


def parse_shape(text: str, order: Order = "BHLD") -> Shape:
    """A shape from what `--shape` was given.

    `B,H,L,D`; with G heads of keys `B,H,G,L,D`; with a window `B,H,G,L,D,W`, -1 being none. The last is that of
    the public repository's `parity_train.py`. Its `bench_decode.py` puts the length before the heads: `BLHD`.

    Raises:
        ConfigError: numbers are missing, are not positive integers, or G does not divide H.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise _refused(text, "those are not integers", order) from None
    if len(numbers) not in ((4,) if order == "BLHD" else (4, 5, 6)):
        raise _refused(text, f"{len(numbers)} numbers", order)
    window = numbers.pop() if len(numbers) == 6 else -1
    if min(numbers) < 1 or (window < 1 and window != -1):
        raise _refused(text, "numbers are 1 or more, and W may be -1", order)
    if order == "BLHD":
        numbers[1], numbers[2] = numbers[2], numbers[1]
    if len(numbers) == 4:
        numbers.insert(2, numbers[1])
    batch, heads, key_heads, length, width = numbers
    if heads % key_heads:
        raise _refused(text, f"{key_heads} heads of keys do not divide {heads} heads", order)
    return Shape(batch, heads, key_heads, length, width, None if window == -1 else window)


def public_grid() -> list[Shape]:
    """The 216 shapes of `--parallax-grid`, as the public repository Yifei-Zuo/Parallax spans them.

    12 numbers of heads, in one row (1 to 2048), 9 lengths (128 to 32768), 2 widths (64, 128). Its script
    leaves out the nine whose keys take over 2 GiB in bf16; here all are in the list, and what does not fit
    is refused when its turn comes.
    """
    return [Shape(1, heads, heads, length, width) for heads in _HEADS for length in _LENGTHS for width in _WIDTHS]


def _refused(text: str, why: str, order: Order) -> ConfigError:
    expected = "B,L,H,D" if order == "BLHD" else "B,H,L,D, B,H,G,L,D or B,H,G,L,D,W"
    return ConfigError(f"--shape {text}: {why}; expected {expected}, such as 1,8,4096,128")
