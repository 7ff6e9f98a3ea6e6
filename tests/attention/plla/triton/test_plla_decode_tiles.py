"""Decoding's tiles and how many programs share a row's keys."""

import pytest

from parallax.attention.plla.triton.decode_tiles import decode_tile, num_splits
from parallax.attention.plla.triton.tiles import padded_width, shared_memory_bytes

CAPABILITIES = [(8, 0), (8, 6), (9, 0)]


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("element_bytes", [2, 4])
def test_there_is_a_tile_for_every_head_and_its_keys_fit(capability: tuple[int, int], element_bytes: int) -> None:
    for group in (1, 5, 8, 9, 32, 71):
        for width in (8, 40, 64, 128, 256):
            tile = decode_tile(group, width, capability, element_bytes)
            on_their_way = 2 * (tile.num_stages - 1) * tile.block_keys * padded_width(width) * element_bytes
            assert 0 < on_their_way <= shared_memory_bytes(capability)


@pytest.mark.parametrize(("group", "width", "rows"), [(4, 128, 8), (8, 256, 8), (16, 128, 16), (32, 64, 32)])
def test_all_heads_of_a_key_head_are_in_one_tile(group: int, width: int, rows: int) -> None:
    assert decode_tile(group, width, (9, 0)).block_heads == rows >= group


def test_a_larger_gpu_has_more_keys_on_their_way() -> None:
    small, large = (decode_tile(4, 128, capability) for capability in ((8, 6), (9, 0)))
    assert small.block_keys * small.num_stages < large.block_keys * large.num_stages


def test_heads_and_gpus_that_no_kernel_takes_are_named() -> None:
    with pytest.raises(ValueError, match="width=264"):
        decode_tile(1, 264, (9, 0))
    with pytest.raises(ValueError, match=r"capability 7\.5"):
        decode_tile(1, 64, (7, 5))


@pytest.mark.parametrize(
    ("programs", "tiles", "splits"),
    [
        (8, 256, 17),  # 8 key heads on 132 multiprocessors
        (8, 5, 5),  # no program without keys
        (256, 1000, 1),  # a batch that fills the device alone
        (131, 1000, 2),
        (1, 1000, 64),  # one program merges them
        (1, 0, 1),
    ],
)
def test_programs_fill_the_device_and_each_has_keys(programs: int, tiles: int, splits: int) -> None:
    assert num_splits(programs, tiles, multiprocessors=132) == splits
