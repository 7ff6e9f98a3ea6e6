import pytest
import torch

from parallax.model.cache import KVCache


def make_cache(batch_size=2, capacity=8):
    return KVCache(
        num_tracks=2,
        num_passes=3,
        num_layers=2,
        batch_size=batch_size,
        num_kv_heads=1,
        capacity=capacity,
        head_dim=2,
        device=torch.device("cpu"),
        dtype=torch.float64,
    )


def write(cache, value, num_tokens):
    """One forward whose token t, in slot s of row b, has key value + t + 100 s + 10000 b and value minus that."""
    begun = cache.begin(num_tokens)
    number, returned = 0, []
    rows = 10_000 * torch.arange(cache.keys.shape[1])[:, None, None, None]
    tokens = torch.arange(num_tokens)[:, None]
    for track in range(2):
        for loop in range(3):
            for slot in cache.slots(track, loop):
                keys = (value + 100 * number + rows + tokens).double().expand(-1, 1, -1, 2)
                returned.append(slot.append(keys, -keys))
                number += 1
    cache.finish()
    return *begun, returned


def held(cache, row):
    """The keys of a row in the first slot, the same in every slot but for 100 s."""
    length = cache.lengths[row]
    keys = cache.keys[:, row, 0, :length, 0] - 10_000 * row
    assert torch.equal(keys - 100 * torch.arange(len(keys))[:, None], keys[:1].expand_as(keys))
    assert torch.equal(cache.values[:, row, :, :length], -cache.keys[:, row, :, :length])
    return keys[0].tolist()


def test_tokens_are_kept_in_order_for_every_track_pass_and_layer():
    cache = make_cache()
    write(cache, 0, 3)
    _, _, returned = write(cache, 50, 2)
    assert cache.lengths == [5, 5]
    assert held(cache, 0) == held(cache, 1) == [0, 1, 2, 50, 51]
    assert len(returned) == 12
    for slot, (keys, values) in enumerate(returned):
        assert torch.equal(keys, cache.keys[slot, :, :, :5])
        assert torch.equal(values, cache.values[slot, :, :, :5])


def test_rows_of_equal_length_share_positions_and_are_causal():
    cache = make_cache()
    positions, mask, _ = write(cache, 0, 3)
    assert (positions.tolist(), mask) == ([[0, 1, 2]], None)
    positions, mask, _ = write(cache, 0, 1)
    assert (positions.tolist(), mask) == ([[3]], None)


def test_truncated_rows_forget_their_newest_tokens_and_write_over_them():
    cache = make_cache()
    write(cache, 0, 4)
    cache.truncate([1, 4])
    assert cache.lengths == [1, 4]
    write(cache, 50, 2)
    assert held(cache, 0) == [0, 50, 51]
    assert held(cache, 1) == [0, 1, 2, 3, 50, 51]


def test_rows_of_unequal_length_have_positions_and_a_mask_of_their_own():
    cache = make_cache()
    write(cache, 0, 4)
    cache.truncate([1, 4])
    positions, mask, returned = write(cache, 50, 2)
    assert positions.tolist() == [[1, 2], [4, 5]]
    assert mask.shape == (2, 1, 2, 6)
    assert mask[:, 0].int().tolist() == [
        [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]],
        [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]],
    ]
    assert all(keys.shape[-2] == 6 for keys, _ in returned)


@pytest.mark.parametrize("lengths", [[4, 3], [-1, 3]])
def test_a_row_cannot_be_truncated_to_more_than_it_holds_or_less_than_nothing(lengths):
    cache = make_cache()
    write(cache, 0, 3)
    with pytest.raises(ValueError, match=r"cannot truncate rows of \[3, 3\] tokens to"):
        cache.truncate(lengths)
    assert cache.lengths == [3, 3]


def test_a_truncation_names_every_row():
    cache = make_cache()
    with pytest.raises(ValueError, match="zip"):
        cache.truncate([0])


def test_a_snapshot_comes_back_after_overwriting():
    cache = make_cache()
    write(cache, 0, 4)
    cache.truncate([2, 4])
    snapshot = cache.snapshot()
    write(cache, 50, 3)
    cache.truncate([0, 1])
    write(cache, 70, 5)
    cache.restore(snapshot)
    assert cache.lengths == [2, 4]
    assert held(cache, 0) == [0, 1]
    assert held(cache, 1) == [0, 1, 2, 3]
    write(cache, 90, 1)
    assert (held(cache, 0), held(cache, 1)) == ([0, 1, 90], [0, 1, 2, 3, 90])


def test_a_snapshot_is_a_copy_that_can_be_restored_again():
    cache = make_cache()
    write(cache, 0, 2)
    snapshot = cache.snapshot()
    for value in (50, 60):
        write(cache, value, 3)
        assert held(cache, 0) == [0, 1, value, value + 1, value + 2]
        cache.truncate([0, 0])
        write(cache, value, 2)
        cache.restore(snapshot)
        assert held(cache, 0) == [0, 1]


def test_an_empty_cache_has_a_snapshot_too():
    cache = make_cache()
    snapshot = cache.snapshot()
    write(cache, 0, 3)
    cache.restore(snapshot)
    assert cache.lengths == [0, 0]


def test_tokens_beyond_the_capacity_are_refused_and_nothing_changes():
    cache = make_cache(capacity=4)
    write(cache, 0, 3)
    cache.truncate([1, 3])
    with pytest.raises(ValueError, match="5 tokens do not fit a cache of 4"):
        cache.begin(2)
    assert cache.lengths == [1, 3]
    write(cache, 50, 1)
    assert (held(cache, 0), held(cache, 1)) == ([0, 50], [0, 1, 2, 50])


def test_keys_of_a_wider_type_come_back_in_the_type_they_were_given():
    cache = make_cache()
    cache.begin(1)
    keys, values = cache.slots(0, 0)[0].append(torch.ones(2, 1, 1, 2), torch.ones(2, 1, 1, 2))
    assert keys.dtype == values.dtype == torch.float32


def test_memory_counts_keys_and_values():
    assert make_cache(batch_size=3, capacity=5).num_bytes == 2 * (2 * 3 * 2) * 3 * 1 * 5 * 2 * 8


def test_selected_rows_keep_their_content_and_come_in_the_given_order():
    cache = make_cache(batch_size=3)
    write(cache, 1, 4)
    cache.truncate([4, 3, 2])
    before = cache.keys[:, [2, 0]].clone()
    cache.select([2, 0])
    assert cache.lengths == [2, 4]
    assert torch.equal(cache.keys, before)
    assert torch.equal(cache.values, -before)


def test_replaced_rows_hold_what_the_other_cache_held_and_others_are_untouched():
    cache, source = make_cache(batch_size=2), make_cache(batch_size=1, capacity=3)
    write(cache, 1, 5)
    write(source, 50, 3)
    first = cache.keys[:, 0].clone()
    cache.replace([1], source)
    assert cache.lengths == [5, 3]
    assert torch.equal(cache.keys[:, 0], first)
    assert torch.equal(cache.keys[:, 1, :, :3], source.keys[:, 0])
    assert torch.equal(cache.values[:, 1, :, :3], source.values[:, 0])
