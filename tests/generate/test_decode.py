import math

import pytest
import torch

from parallax.errors import ConfigError, DataError, NonFiniteError, TokenizerError
from parallax.generate.decode import generate
from parallax.generate.sampling import SamplingOptions

GREEDY = SamplingOptions(temperature=0)
WARM = SamplingOptions(temperature=1.3)
PROMPTS = [[3], [5, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8]]
LONG = [*range(30)]


def write(model, prompts=PROMPTS, **changes):
    request = {"max_new_tokens": 20, "options": WARM, "seed": 7, "eos_id": None, **changes}
    return generate(model, prompts, **request)


def greedy_by_recomputation(model, prompt, count, penalty=1.0):
    window = model.config.max_seq_len
    context, written = list(prompt), []
    for _ in range(count):
        if len(context) > window:
            context = context[-(window // 2) :]
        logits = model(torch.tensor([context]))[0, -1].tolist()
        for token in {*prompt, *written}:
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        written.append(logits.index(max(logits)))
        context.append(written[-1])
    return written


def early_token(model, row, **changes):
    """A token that a row writes after a few others, and what it writes before it."""
    written = write(model, **changes)[row].tokens
    place = next(i for i in range(2, len(written)) if written[i] not in written[:i])
    return written[place], written[:place]


@pytest.mark.parametrize("prompt", [*PROMPTS, LONG], ids=len)
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_greedy_text_is_the_one_that_full_recomputation_writes(make_model, prompt, passes):
    model = make_model(num_loops=passes)
    expected = greedy_by_recomputation(model, prompt, 30)
    [alone] = write(model, [prompt], options=GREEDY, max_new_tokens=30)
    beside_others = write(model, [*PROMPTS, prompt], options=GREEDY, max_new_tokens=30)[-1]
    assert alone.tokens == beside_others.tokens == expected
    assert len(set(expected)) > 2, "the model must write something that could go wrong"


def test_a_row_writes_the_same_whoever_is_in_the_batch(model):
    [_, alone, _] = write(model, max_new_tokens=40)
    [_, beside_others, _, _] = write(model, [LONG, PROMPTS[1], [1] * 12, [9]], max_new_tokens=40)
    assert alone == beside_others


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_the_batch_size_does_not_change_what_is_written(model, batch_size):
    prompts = [*PROMPTS, LONG, [0]]
    eos_id, _ = early_token(model, 1, prompts=prompts)
    assert write(model, prompts, eos_id=eos_id, batch_size=batch_size) == write(model, prompts, eos_id=eos_id)


def test_rows_of_one_prompt_write_different_texts_and_the_seed_decides_which(model):
    same_prompt = [[5, 6]] * 3
    texts = [tuple(row.tokens) for row in write(model, same_prompt)]
    assert len(set(texts)) == 3
    assert texts == [tuple(row.tokens) for row in write(model, same_prompt)]
    assert texts != [tuple(row.tokens) for row in write(model, same_prompt, seed=8)]


def test_a_row_ends_at_the_end_of_document_token_and_the_others_go_on_unchanged(model):
    eos_id, before = early_token(model, 1)
    others = [write(model)[row].tokens for row in (0, 2)]
    rows = write(model, eos_id=eos_id)
    assert (rows[1].tokens, rows[1].finished) == (before, "eos")
    for row, tokens in zip((rows[0], rows[2]), others, strict=True):
        expected = tokens[: tokens.index(eos_id)] if eos_id in tokens else tokens
        assert row.tokens == expected
        assert row.finished == ("eos" if eos_id in tokens else "length")


def test_finished_rows_are_not_computed_and_nothing_is_read_after_the_last_token(model):
    rows_read = []
    model.register_forward_pre_hook(lambda _, args: rows_read.append(len(args[0])))
    write(model, max_new_tokens=4)
    assert rows_read == [3, 3, 3, 3]
    eos_id, before = early_token(model, 1, prompts=PROMPTS[:2])
    rows_read.clear()
    first, _ = write(model, PROMPTS[:2], eos_id=eos_id)
    assert eos_id not in first.tokens
    assert rows_read[len(before)] == 2
    assert set(rows_read[len(before) + 1 :]) == {1}


def test_every_token_is_reported_when_it_is_drawn_and_the_end_of_document_is_not(model):
    eos_id, _ = early_token(model, 1)
    reported = []
    rows = write(model, eos_id=eos_id, on_token=lambda row, token: reported.append((row, token)))
    for index, row in enumerate(rows):
        assert [token for place, token in reported if place == index] == row.tokens
    assert [place for place, _ in reported[:6]] == [0, 1, 2, 0, 1, 2]


def test_an_empty_prompt_starts_from_the_end_of_document_token(model):
    [empty] = write(model, [[]], eos_id=30)
    [stated] = write(model, [[30]], eos_id=30)
    assert empty == stated


def test_a_prompt_beyond_the_window_is_cut_to_its_newest_half_and_says_so(model):
    rows = write(model, [LONG, LONG[-6:], LONG[:12]], options=GREEDY)
    assert rows[0].tokens == rows[1].tokens
    assert [row.dropped_prompt_tokens for row in rows] == [24, 0, 0]


@pytest.mark.parametrize("prompt", [[4, 5, 6], LONG], ids=len)
def test_the_repetition_penalty_covers_the_whole_prompt_and_what_was_written(model, prompt):
    options = SamplingOptions(temperature=0, repetition_penalty=1.4)
    [row] = write(model, [prompt], max_new_tokens=30, options=options)
    assert row.tokens == greedy_by_recomputation(model, prompt, 30, penalty=1.4)
    assert row.tokens != greedy_by_recomputation(model, prompt, 30)


def test_half_precision_models_write_too(make_model):
    for dtype in (torch.bfloat16, torch.float16):
        rows = write(make_model().to(dtype), options=GREEDY)
        assert [len(row.tokens) for row in rows] == [20, 20, 20]


def test_dropout_is_off_while_writing_and_every_module_keeps_its_mode(make_model):
    model = make_model(dropout=0.5).train()
    model.tracks["0"].eval()
    modes = [module.training for module in model.modules()]
    assert write(model, options=GREEDY) == write(make_model(), options=GREEDY)
    assert [module.training for module in model.modules()] == modes


def test_modes_come_back_when_the_callback_raises(model):
    def interrupt(row, token):
        raise KeyboardInterrupt

    model.train()
    with pytest.raises(KeyboardInterrupt):
        write(model, on_token=interrupt)
    assert all(module.training for module in model.modules())


def test_no_prompts_give_no_texts(model):
    assert write(model, []) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"max_new_tokens": 0}, ConfigError, "max_new_tokens=0: expected at least 1"),
        ({"batch_size": 0}, ConfigError, "batch_size=0: expected at least 1"),
        (
            {"prompts": [[1], [2, 31]]},
            DataError,
            "prompt 1 holds token id 31, .* has 31 tokens; use the tokenizer",
        ),
        ({"prompts": [[-1]]}, DataError, "prompt 0 holds token id -1"),
        ({"prompts": [[1], []]}, DataError, "prompt 1 is empty .*; give at least one token"),
        ({"eos_id": 31}, TokenizerError, "end-of-document token has id 31, .* has 31 tokens"),
    ],
)
def test_bad_requests_are_refused_with_the_value_and_the_way_out(model, changes, error, message):
    with pytest.raises(error, match=message):
        write(model, **changes)


@pytest.mark.parametrize("options", [GREEDY, WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_stop_the_writing(model, options, value):
    with torch.no_grad():
        model.embedding.weight.fill_(value)
    with pytest.raises(NonFiniteError, match="prompt 0: the logits after 0 new tokens are not finite"):
        write(model, options=options)
