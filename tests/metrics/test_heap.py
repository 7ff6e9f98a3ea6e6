"""The model of the C library's heap."""

from parallax.metrics.heap import Heap, grown_bytes

MIB = 1 << 20


def test_memory_that_is_given_back_is_taken_again() -> None:
    heap = Heap()
    for _ in range(10):
        heap.give(heap.take(MIB))
    assert MIB <= heap.peak_bytes < MIB + 1000


def test_neighbours_are_joined_into_room_for_a_larger_one() -> None:
    heap = Heap()
    taken = [heap.take(MIB) for _ in range(4)]
    wall = heap.take(MIB)
    before = heap.peak_bytes
    for each in taken:
        heap.give(each)
    heap.take(3 * MIB)
    assert heap.peak_bytes == before
    heap.give(wall)


def test_a_hole_too_small_makes_the_heap_grow() -> None:
    heap = Heap()
    taken = [heap.take(MIB) for _ in range(8)]
    for each in taken[::2]:
        heap.give(each)
    heap.take(2 * MIB)
    assert heap.peak_bytes > 9.9 * MIB


def test_the_smallest_hole_that_is_large_enough_is_cut() -> None:
    heap = Heap()
    large, _wall, small, _end = (heap.take(size * MIB) for size in (4, 1, 2, 1))
    heap.give(large)
    heap.give(small)
    heap.take(MIB)
    before = heap.peak_bytes
    heap.take(3 * MIB)  # the hole of four is still whole
    assert heap.peak_bytes == before


def test_a_step_is_made_twice() -> None:
    first = [(0, MIB), (1, 2 * MIB), (1, 0), (2, MIB)]
    alone, again = grown_bytes(first, []), grown_bytes(first, [(1, 2 * MIB), (1, 0)])
    assert alone < 3 * MIB + 2000
    assert again > 3.9 * MIB  # the state in 2 took a part of the hole that 1 had left
