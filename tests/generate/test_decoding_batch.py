import itertools

import pytest
import torch

from parallax.generate.batch import DecodingBatch, fit_window

PROMPTS = [[3], [5, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8]]
WINDOW = 12


def uncached(model, context):
    """The logits after a context, in one forward without a cache."""
    return model(torch.tensor([context]))[0, -1]


def steps(num_rows, count):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(31, (count, num_rows), generator=generator).tolist()


def assert_same(batch, model, contexts, tolerance=1e-12):
    expected = torch.stack([uncached(model, context) for context in contexts])
    torch.testing.assert_close(batch.logits, expected, rtol=0, atol=tolerance)


ARCHITECTURES = [
    {"num_tracks": tracks, "num_loops": passes, "use_swap": swap, "reinject": swap}
    for tracks, passes, swap in itertools.product((1, 2, 3), (1, 2, 3), (True, False))
]
ARCHITECTURES += [
    {"num_tracks": 2, "num_loops": 3, "use_swap": swap, "reinject": not swap} for swap in (True, False)
]


@pytest.mark.parametrize(
    "changes", ARCHITECTURES, ids=lambda c: "K{num_tracks}-R{num_loops}-{use_swap}-{reinject}".format(**c)
)
@torch.inference_mode()
def test_cached_logits_of_rows_of_unequal_length_equal_uncached_ones(make_model, changes):
    model = make_model(**changes)
    contexts = [list(prompt) for prompt in PROMPTS]
    batch = DecodingBatch(model, contexts, max_new_tokens=5)
    assert_same(batch, model, contexts)
    for tokens in steps(3, 5):
        batch.append(tokens)
        contexts = [[*context, token] for context, token in zip(contexts, tokens, strict=True)]
        assert_same(batch, model, contexts)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@torch.inference_mode()
def test_cached_logits_equal_uncached_ones_in_every_backend_and_head_grouping(make_model, backend, num_kv_heads):
    model = make_model(num_kv_heads=num_kv_heads, attention_backend=backend)
    contexts = [list(prompt) for prompt in PROMPTS]
    batch = DecodingBatch(model, contexts, max_new_tokens=1)
    batch.append([6, 7, 8])
    assert_same(batch, model, [[*c, t] for c, t in zip(contexts, [6, 7, 8], strict=True)])


@torch.inference_mode()
def test_rows_of_equal_length_take_the_causal_path_and_give_the_same(model):
    contexts = [[1, 2, 3], [4, 5, 6]]
    batch = DecodingBatch(model, contexts, max_new_tokens=2)
    batch.append([7, 8])
    assert_same(batch, model, [[1, 2, 3, 7], [4, 5, 6, 8]])


@pytest.mark.parametrize("window", [1, 2, 3, 12])
@torch.inference_mode()
def test_a_row_past_the_window_goes_on_from_its_newest_half_while_the_others_keep_theirs(make_model, window):
    model = make_model(max_seq_len=window)
    half = max(window // 2, 1)
    contexts = [list(prompt if len(prompt) <= window else prompt[-half:]) for prompt in PROMPTS]
    batch = DecodingBatch(model, PROMPTS, max_new_tokens=40)
    for tokens in steps(3, 40):
        batch.append(tokens)
        for context, token in zip(contexts, tokens, strict=True):
            context.append(token)
        contexts = [c if len(c) <= window else c[-half:] for c in contexts]
        assert_same(batch, model, contexts)


@torch.inference_mode()
def test_dropped_rows_leave_the_others_as_they_were(model):
    batch = DecodingBatch(model, PROMPTS, max_new_tokens=9)
    batch.append([10, 11, 12])
    batch.keep([1, 2])
    batch.append([13, 14])
    assert_same(batch, model, [[*PROMPTS[1], 11, 13], [*PROMPTS[2], 12, 14]])
    batch.keep([1])
    batch.append([15])
    assert_same(batch, model, [[*PROMPTS[2], 12, 14, 15]])
    assert batch.seen[0].nonzero().flatten().tolist() == sorted({*PROMPTS[2], 12, 14, 15})


@torch.inference_mode()
def test_tokens_stay_seen_after_they_left_the_window(model):
    batch = DecodingBatch(model, [list(range(20))], max_new_tokens=20)
    for token in range(20, 30):
        batch.append([token])
    assert batch.seen[0].nonzero().flatten().tolist() == list(range(30))


def test_a_text_is_cut_to_half_the_window_only_when_it_does_not_fit():
    assert fit_window([1, 2, 3, 4], 4) == [1, 2, 3, 4]
    assert fit_window([1, 2, 3, 4, 5], 4) == [4, 5]
    assert fit_window([1, 2], 1) == [2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_under_autocast_the_cache_holds_what_attention_computed(make_model, dtype):
    model = make_model().float()
    with torch.autocast("cpu", dtype):
        batch = DecodingBatch(model, PROMPTS, max_new_tokens=4)
        batch.append([6, 7, 8])
        expected = torch.stack([uncached(model, [*c, t]) for c, t in zip(PROMPTS, [6, 7, 8], strict=True)])
    assert batch.logits.dtype == torch.float32
    assert batch._cache.keys.dtype == dtype
    torch.testing.assert_close(batch.logits, expected, rtol=0.05, atol=0.05)


@torch.inference_mode()
def test_autocast_leaves_a_float64_model_exact(model):
    with torch.autocast("cpu", torch.bfloat16):
        batch = DecodingBatch(model, PROMPTS, max_new_tokens=4)
        batch.append([6, 7, 8])
        assert_same(batch, model, [[*c, t] for c, t in zip(PROMPTS, [6, 7, 8], strict=True)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_a_gpu_computes_the_cached_logits_of_the_cpu(make_model):
    on_cpu = DecodingBatch(make_model(), PROMPTS, max_new_tokens=30)
    on_gpu = DecodingBatch(make_model().cuda(), PROMPTS, max_new_tokens=30)
    for tokens in steps(3, 30):
        on_cpu.append(tokens)
        on_gpu.append(tokens)
        torch.testing.assert_close(on_gpu.logits.cpu(), on_cpu.logits, rtol=0, atol=1e-10)
