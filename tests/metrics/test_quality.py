import math

import pytest
import torch
import torch.nn.functional as F

from parallax.config.models.dual_track import DualTrackConfig
from parallax.errors import DataError
from parallax.metrics.quality import evaluate, perplexity, quality_from_sums
from parallax.model.head import IGNORE_INDEX
from parallax.model.noise import row_keys
from parallax.model.registry import build_model, materialize

CONFIG = DualTrackConfig(
    num_layers=1, num_heads=2, hidden_size=16, vocab_size=50, max_seq_len=8, dropout=0.5, intermediate_size=64
)


@pytest.fixture
def model():
    model = materialize(build_model(CONFIG), "cpu", seed=3)
    # Weights as drawn predict every token alike; larger ones make right answers and wrong ones.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    return model


@pytest.fixture
def text():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(50, (6, 8), generator=generator)
    targets = torch.randint(50, (6, 8), generator=generator)
    targets[0, :3] = IGNORE_INDEX
    return tokens, targets


def test_the_figures_are_those_of_the_logits(model, text):
    tokens, targets = text
    quality = evaluate(model, [text], bytes_per_token=4.0)
    model.eval()
    logits = model(tokens).double().flatten(0, 1)
    loss = F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE_INDEX).item()
    valid = targets.flatten() != IGNORE_INDEX
    assert quality.tokens == valid.sum() == 45
    assert quality.loss == pytest.approx(loss, rel=1e-6)
    assert quality.perplexity == pytest.approx(math.exp(loss), rel=1e-5)
    assert quality.bits_per_byte == pytest.approx(loss / math.log(2) / 4.0, rel=1e-6)
    right = (logits.argmax(-1) == targets.flatten())[valid]
    assert quality.accuracy == pytest.approx(right.double().mean().item())


def test_the_cut_into_batches_does_not_matter(model, text):
    whole = evaluate(model, [text], bytes_per_token=None)
    rows = zip(*(part.split([1, 3, 2]) for part in text), strict=True)
    cut = evaluate(model, rows, bytes_per_token=None)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    assert (cut.tokens, cut.accuracy) == (whole.tokens, whole.accuracy)


def test_dropout_is_off_while_measuring_and_every_mode_is_restored(model, text):
    model.train()
    model.tracks["0"].eval()
    first, second = (evaluate(model, [text], bytes_per_token=None).loss for _ in range(2))
    assert first == second
    assert model.training
    assert model.tracks["1"].training
    assert not model.tracks["0"].training


def test_the_mode_is_restored_after_a_failure(model):
    model.train()
    with pytest.raises(IndexError):
        evaluate(model, [(torch.tensor([[999]]), torch.tensor([[0]]))], bytes_per_token=None)
    assert model.training


def test_nothing_is_kept_for_a_backward_and_training_goes_on(model, text):
    recorded = []
    hook = model.register_forward_hook(lambda module, inputs, output: recorded.append(output.objective_sum))
    evaluate(model, [text], bytes_per_token=None)
    hook.remove()
    assert [output.requires_grad for output in recorded] == [False]
    model(*text, noise=row_keys(0, range(len(text[0])))).objective_sum.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_autocast_changes_the_products_a_little(model, text):
    exact = evaluate(model, [text], bytes_per_token=None).loss
    narrow = evaluate(model, [text], bytes_per_token=None, autocast_dtype=torch.bfloat16).loss
    assert narrow != exact
    assert narrow == pytest.approx(exact, rel=0.05)


def test_progress_counts_batches(model, text):
    seen = []
    evaluate(model, [text, text, text], bytes_per_token=None, progress=seen.append)
    assert seen == [1, 2, 3]


def test_a_split_without_tokens_is_refused(model, text):
    nothing = torch.full_like(text[1], IGNORE_INDEX)
    for batches in ([], [(text[0], nothing)]):
        with pytest.raises(DataError, match="no token"):
            evaluate(model, batches, bytes_per_token=None)


def test_without_bytes_per_token_there_are_no_bits_per_byte():
    assert quality_from_sums(10.0, 5, 1, None).bits_per_byte is None


def test_perplexity_past_the_range_of_a_float_is_infinite():
    assert perplexity(800.0) == math.inf
    assert perplexity(math.inf) == math.inf
    assert math.isnan(perplexity(math.nan))
