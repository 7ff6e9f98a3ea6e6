"""The one place where tracks meet, and who owns which parameter."""

import pytest
import torch
from small_models import small_config, small_model

from parallax.model.exchange import LocalExchange
from parallax.model.registry import build_model, ownership_of
from parallax.runtime.layout import SHARED, Owner


@pytest.mark.parametrize("num_tracks", [1, 2, 3])
def test_all_tracks_are_local_and_each_receives_its_lower_neighbours_output(num_tracks: int) -> None:
    exchange = LocalExchange(num_tracks)
    outputs = [torch.tensor(float(k)) for k in range(num_tracks)]
    assert list(exchange.local_tracks) == list(range(num_tracks))
    assert [int(received) for received in exchange.shift(outputs)] == [
        (k - 1) % num_tracks for k in range(num_tracks)
    ]


def test_the_shift_goes_back_the_other_way_in_the_backward() -> None:
    outputs = [torch.zeros(1, requires_grad=True) for _ in range(3)]
    received = LocalExchange(3).shift(outputs)
    sum((k + 1) * value for k, value in enumerate(received)).backward()
    assert [int(output.grad) for output in outputs if output.grad is not None] == [2, 3, 1]


def test_reduce_adds_every_track_and_hands_its_gradient_to_each() -> None:
    outputs = [torch.full((2,), float(k), requires_grad=True) for k in (1, 2, 4)]
    total = LocalExchange(3).reduce(outputs)
    assert total.tolist() == [7.0, 7.0]
    (total * torch.tensor([3.0, 5.0])).sum().backward()
    assert all(output.grad is not None and output.grad.tolist() == [3.0, 5.0] for output in outputs)


def test_reduce_leaves_the_outputs_as_they_are() -> None:
    outputs = [torch.ones(2), torch.ones(2)]
    LocalExchange(2).reduce(outputs)
    assert all(output.tolist() == [1.0, 1.0] for output in outputs)


def test_enter_is_the_identity_and_collects_the_gradients_of_all_uses() -> None:
    x = torch.ones(1, requires_grad=True)
    entered = LocalExchange(2).enter(x)
    assert torch.equal(entered, x)
    (2 * entered + 3 * entered).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 5.0


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("num_tracks", [1, 2, 3])
def test_the_ownership_map_names_exactly_the_parameters(num_tracks: int, tie_embeddings: bool) -> None:
    config = small_config(num_tracks=num_tracks, tie_embeddings=tie_embeddings)
    ownership = ownership_of(config)
    assert set(ownership) == {name for name, _ in build_model(config).named_parameters()}


def test_the_ownership_map_says_whose_and_where_the_vocabulary_runs() -> None:
    config = small_config()
    ownership = ownership_of(config)
    shapes = {name: parameter.shape for name, parameter in build_model(config).named_parameters()}
    for name, owner in ownership.items():
        parts = name.split(".")
        if parts[0] == "tracks":
            assert owner == Owner(track=int(parts[1]))
        elif owner.vocab_dim is not None:
            assert shapes[name][owner.vocab_dim] == config.vocab_size
    assert ownership["norm.weight"] == SHARED
    assert {name for name, owner in ownership.items() if owner.vocab_dim is not None} == {
        "embedding.weight",
        "head.weight",
    }


def test_a_gradient_reaches_every_parameter() -> None:
    config = small_config(num_tracks=3, num_loops=2)
    model = small_model(config)
    tokens = torch.arange(config.vocab_size)[None]
    model(tokens, tokens.flip(1)).objective_sum.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
