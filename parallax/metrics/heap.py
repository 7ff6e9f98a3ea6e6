from bisect import bisect_left, insort

_ALIGNMENT = 64
"""Of PyTorch's tensors on a CPU."""
_GRAIN, _HEADER, _SMALLEST = 16, 8, 32
"""Of glibc's chunks on 64-bit machines."""
_BESIDE = 256
"""A tensor's own description, about: what lives in the heap beside the numbers, as long as they do."""


class Heap:
    """The C library's heap as a run sets it up: one piece of memory that grows and is never given back.

    A model of glibc's malloc with neither mmap nor trim (`runtime/allocator.py`): the smallest free chunk that is
    large enough is cut, free neighbours are joined, and where none is large enough the top moves up. A tensor
    asks for 64-byte alignment, and so for a chunk a little larger than itself, whose rest goes back. What
    describes a tensor takes the smallest chunks there are, such as these rests, so that a tensor's hole is often
    too small for the next tensor of its size.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        """The highest that the top was."""
        self._top = 0
        self._sizes: dict[int, int] = {}
        """Of chunks in use, by where they begin."""
        self._free: dict[int, int] = {}
        """End of every free chunk, by where it begins."""
        self._free_ends: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []
        self._small: list[int] = []
        """Chunks that described a tensor; glibc keeps them for the next description."""

    def take(self, num_bytes: int) -> tuple[int, int]:
        """Memory of a tensor and of its description; give both back together."""
        beside = self._small.pop() if self._small else self._cut(_BESIDE)
        wanted = max(_SMALLEST, -(-(num_bytes + _HEADER) // _GRAIN) * _GRAIN)
        start = self._cut(wanted + _ALIGNMENT + _SMALLEST)
        end = start + self._sizes.pop(start)
        # Numbers begin two headers into a chunk.
        aligned = -(-(start + 2 * _HEADER) // _ALIGNMENT) * _ALIGNMENT - 2 * _HEADER
        if 0 < aligned - start < _SMALLEST:
            aligned += _ALIGNMENT
        if aligned > start:
            self._release(start, aligned)
        if end - aligned - wanted >= _SMALLEST:
            self._release(aligned + wanted, end)
            end = aligned + wanted
        self._sizes[aligned] = end - aligned
        return aligned, beside

    def give(self, taken: tuple[int, int]) -> None:
        """The inverse of `take`."""
        start, beside = taken
        self._release(start, start + self._sizes.pop(start))
        self._small.append(beside)

    def _cut(self, size: int) -> int:
        place = bisect_left(self._by_size, (size, -1))
        if place == len(self._by_size):
            start = self._top
            self._top += size
            self.peak_bytes = max(self.peak_bytes, self._top)
        else:
            found, start = self._by_size[place]
            self._forget(start)
            if found - size >= _SMALLEST:
                self._keep(start + size, start + found)
            else:
                size = found
        self._sizes[start] = size
        return start

    def _release(self, start: int, end: int) -> None:
        if start in self._free_ends:
            before = self._free_ends[start]
            self._forget(before)
            start = before
        if end in self._free:
            after = self._free[end]
            self._forget(end)
            end = after
        if end == self._top:
            self._top = start
        else:
            self._keep(start, end)

    def _keep(self, start: int, end: int) -> None:
        self._free[start], self._free_ends[end] = end, start
        insort(self._by_size, (end - start, start))

    def _forget(self, start: int) -> None:
        end = self._free.pop(start)
        del self._free_ends[end]
        del self._by_size[bisect_left(self._by_size, (end - start, start))]


def grown_bytes(first: list[tuple[int, int]], again: list[tuple[int, int]]) -> int:
    """How far the heap grows over changes of memory: `first` once, then `again`, the same step another time.

    Args:
        first: (number of a piece of memory, its new size) in order.
        again: the same of what a step takes and gives back, from the second step on.
    """
    heap, held = Heap(), dict[int, tuple[int, int]]()
    for number, size in [*first, *again]:
        if number in held:
            heap.give(held.pop(number))
        if size:
            held[number] = heap.take(size)
    return heap.peak_bytes
