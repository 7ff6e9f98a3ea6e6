import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parallax.errors import ConfigError
from parallax.generate.sampling import NOT_FINITE, SamplingOptions, sample, token_probabilities

VOCAB = 17


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def restated(logits, seen, options):
    """The distribution of one row, token by token, from the definitions."""
    scores = logits.astype(np.float64).copy()
    for token in seen:
        scores[token] *= 1 / options.repetition_penalty if scores[token] > 0 else options.repetition_penalty
    scores /= options.temperature
    if options.top_k:
        for token in np.argsort(-scores)[options.top_k :]:
            scores[token] = -np.inf
    if options.top_p < 1:
        probabilities, reached = softmax(scores), 0.0
        for token in np.argsort(-scores):
            if reached >= options.top_p:
                scores[token] = -np.inf
            reached += probabilities[token]
    probabilities = softmax(scores)
    probabilities[probabilities < options.min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


def random_case(seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2, size=(3, VOCAB))
    seen = generator.random((3, VOCAB)) < 0.3
    return logits, seen


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    temperature=st.floats(0.05, 20),
    top_k=st.integers(0, VOCAB + 3),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    penalty=st.floats(0.2, 5),
)
def test_probabilities_are_those_of_a_plain_restatement(seed, temperature, top_k, top_p, min_p, penalty):
    options = SamplingOptions(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    logits, seen = random_case(seed)
    found = token_probabilities(torch.tensor(logits), options, torch.tensor(seen))
    expected = [
        restated(row, np.flatnonzero(row_seen), options) for row, row_seen in zip(logits, seen, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.49}, [0]),
        ({"top_p": 0.51}, [0, 1]),
        ({"top_p": 1e-9}, [0]),
        ({"min_p": 0.49}, [0, 1]),
        ({"min_p": 0.51}, [0]),
        ({"min_p": 1.0}, [0]),
        # Of 3 tokens left by top-k, 0.5 / 0.875 already reaches 0.57: each filter sees what is left, renormalised.
        ({"top_k": 3, "top_p": 0.57}, [0]),
        ({"top_p": 0.57}, [0, 1]),
        # The temperature comes first: at 2 the ratios 1/4 are only 1/2.
        ({"temperature": 2.0, "min_p": 0.49}, [0, 1, 2, 3]),
    ],
)
def test_filters_keep_exactly_the_tokens_of_their_definition(changes, kept):
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    # The last two are told apart by a hair, for tie rules are another test's subject.
    logits[0, 3] -= 1e-3
    found = token_probabilities(logits, SamplingOptions(**changes))
    assert found[0].nonzero().flatten().tolist() == kept
    assert found.sum().item() == pytest.approx(1)


def test_tokens_as_likely_as_the_k_th_are_kept():
    found = token_probabilities(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), SamplingOptions(top_k=2))
    assert found[0].nonzero().flatten().tolist() == [0, 1, 2]


def test_of_equally_likely_tokens_the_nucleus_holds_the_lowest_ids():
    found = token_probabilities(torch.zeros(2, 5000), SamplingOptions(top_p=0.1999))
    assert found[1].nonzero().flatten().tolist() == list(range(1000))


def test_the_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits, seen = torch.tensor([[2.0, 2.0, -2.0, -2.0]]), torch.tensor([[True, False, True, False]])
    found = token_probabilities(logits, SamplingOptions(repetition_penalty=2), seen)
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0, -4.0, -2.0]]).double().softmax(-1))


@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(temperature=0.7, top_k=6, min_p=0.05)])
def test_draws_follow_the_probabilities(options):
    count = 40_000
    logits = torch.randn(1, VOCAB, generator=torch.Generator().manual_seed(3))
    [generator] = generators(5)
    drawn = sample(logits.expand(count, -1), options, [generator] * count)
    expected = token_probabilities(logits, options)[0]
    deviation = torch.bincount(drawn, minlength=VOCAB) / count - expected
    # Five standard deviations of a binomial share; a token of probability 0 is never drawn.
    assert (deviation.abs() <= 5 * (expected * (1 - expected) / count).sqrt()).all()


def test_a_row_draws_the_same_alone_and_beside_others():
    logits = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(0))
    together, alone = generators(10, 11, 12, 13), generators(10, 11, 12, 13)
    for _ in range(20):
        batch = sample(logits, SamplingOptions(), together)
        single = [sample(logits[row : row + 1], SamplingOptions(), [alone[row]]) for row in range(4)]
        assert batch.tolist() == torch.cat(single).tolist()


def test_greedy_takes_the_likeliest_token_and_consumes_no_randomness():
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 1.0, 2.0, 0.0]])
    rows = generators(1, 2)
    before = [g.get_state() for g in rows]
    assert sample(logits, SamplingOptions(temperature=0), rows).tolist() == [1, 0]
    assert all(torch.equal(g.get_state(), state) for g, state in zip(rows, before, strict=True))


def test_greedy_respects_the_repetition_penalty():
    options = SamplingOptions(temperature=0, repetition_penalty=2)
    assert sample(torch.tensor([[3.0, 2.0]]), options, [], torch.tensor([[True, False]])).tolist() == [1]


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 5e-324])
def test_sampling_becomes_greedy_as_the_temperature_goes_to_0(temperature):
    logits = 50 * torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(1))
    drawn = sample(logits, SamplingOptions(temperature=temperature), generators(*range(64)))
    assert drawn.tolist() == logits.argmax(-1).tolist()


def test_a_high_temperature_makes_all_tokens_equally_likely():
    found = token_probabilities(torch.tensor([[9.0, 0.0, -9.0]]), SamplingOptions(temperature=1e9))
    torch.testing.assert_close(found, torch.full((1, 3), 1 / 3, dtype=torch.float64))


def test_extreme_numbers_draw_the_first_and_the_last_token_that_is_left(monkeypatch):
    logits = torch.tensor([[-math.inf, 1.0, 2.0, 0.5, -math.inf]])
    for number, token in ((0.0, 1), (1 - 2**-53, 3)):
        monkeypatch.setattr(
            torch, "rand", lambda *_, number=number, **__: torch.tensor([number], dtype=torch.float64)
        )
        assert sample(logits, SamplingOptions(), generators(0)).tolist() == [token]


@pytest.mark.parametrize(
    ("shares", "sums", "number", "token"),
    [([0.5, 0.0, 0.5], [0.5, 0.5 + 1e-9, 1.0], 0.5 + 5e-10, 2), ([1.0, 0.0], [1.0, 1.0 + 1e-9], 1 - 2**-53, 0)],
)
def test_rounding_of_parallel_sums_never_draws_a_filtered_token(monkeypatch, shares, sums, number, token):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([number], dtype=torch.float64))
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda *_: torch.tensor([sums], dtype=torch.float64))
    assert sample(torch.tensor([shares]).log(), SamplingOptions(), generators(0)).tolist() == [token]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_without_finite_logits_are_marked_and_the_others_drawn(temperature):
    bad = [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]]
    logits = torch.tensor([*bad, [-math.inf, 0.0]])
    drawn = sample(logits, SamplingOptions(temperature=temperature), generators(0, 1, 2, 3))
    assert drawn.tolist() == [NOT_FINITE, NOT_FINITE, NOT_FINITE, 1]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("temperature", -0.1, "0 (greedy) or more"),
        ("temperature", math.nan, "0 (greedy) or more"),
        ("temperature", math.inf, "0 (greedy) or more"),
        ("top_k", -1, "a count of tokens, or 0 for all"),
        ("top_p", 0.0, "more than 0 and at most 1 (all tokens)"),
        ("top_p", 1.5, "more than 0 and at most 1 (all tokens)"),
        ("min_p", -0.5, "0 (all tokens) to 1 (only the likeliest)"),
        ("min_p", 1.1, "0 (all tokens) to 1 (only the likeliest)"),
        ("repetition_penalty", 0.0, "more than 0; 1 is no penalty"),
        ("repetition_penalty", math.nan, "more than 0; 1 is no penalty"),
    ],
)
def test_an_option_outside_its_range_is_refused_by_name_value_and_range(option, value, expected):
    with pytest.raises(ConfigError) as caught:
        SamplingOptions(**{option: value})
    assert str(caught.value) == f"{option}={value}: expected {expected}"
