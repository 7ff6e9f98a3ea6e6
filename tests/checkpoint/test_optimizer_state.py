from collections.abc import Iterable
from typing import Any

import pytest
import torch
from saved_steps import content
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from parallax.checkpoint.load import read_checkpoint
from parallax.checkpoint.store import CheckpointStore
from parallax.errors import CheckpointError
from parallax.parallel.optimizer_state import optimizer_tensors, restore_optimizer


def _model(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width), nn.Linear(width, 2))


def _adamw(model: nn.Module, *, reverse: bool = False, **options: Any) -> AdamW:
    """AdamW over two groups, matrices and others; `reverse` turns the order of groups and parameters round."""
    parameters = list(model.parameters())[:: -1 if reverse else 1]
    groups = [
        {"params": [p for p in parameters if p.dim() == 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    return AdamW(groups[:: -1 if reverse else 1], lr=0.01, **options)


def _train(model: nn.Module, optimizer: Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": False}, {"amsgrad": True}], ids=str)
def test_a_restored_optimizer_goes_on_bit_for_bit_whatever_the_order_of_parameters(
    store: CheckpointStore, options: dict[str, Any]
) -> None:
    model = _model()
    optimizer = _adamw(model, **options)
    _train(model, optimizer, range(3))
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    path = store.save(3, **content(3) | {"optimizer": tensors, "state": {"optimizer": extra}})
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    _train(model, optimizer, range(3, 6))

    other = _model()
    other.load_state_dict(weights)
    restored = _adamw(other, reverse=True, **options)
    saved = read_checkpoint(path)
    restore_optimizer(restored, other.named_parameters(), saved.optimizer, saved.state["optimizer"], source=path)
    _train(other, restored, range(3, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    expected, _ = optimizer_tensors(optimizer, model.named_parameters())
    found, _ = optimizer_tensors(restored, other.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_state_is_named_by_parameter() -> None:
    model = _model()
    optimizer = _adamw(model)
    _train(model, optimizer, [0])
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    parameters = [name for name, _ in model.named_parameters()]
    assert tensors.keys() == {f"{key}/{name}" for key in ("exp_avg", "exp_avg_sq", "step") for name in parameters}
    assert extra == {"optimizer": "AdamW", "values": {}}
    assert tensors["step/0.weight"].shape == ()


def test_state_that_is_no_tensor_survives() -> None:
    model = _model()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    _train(model, optimizer, [0])
    optimizer.state[model[0].weight]["visits"] = 3
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    assert extra["values"] == {"visits/0.weight": 3}
    other = _model()
    restored = SGD(other.parameters(), lr=0.1, momentum=0.9)
    restore_optimizer(restored, other.named_parameters(), tensors, extra, source="here")
    assert restored.state[other[0].weight]["visits"] == 3


def test_hyperparameters_stay_those_of_the_configuration() -> None:
    model = _model()
    optimizer = _adamw(model)
    _train(model, optimizer, [0])
    restored = AdamW(model.parameters(), lr=0.5, weight_decay=0.3)
    restore_optimizer(
        restored, model.named_parameters(), *optimizer_tensors(optimizer, model.named_parameters()), source="here"
    )
    assert (restored.param_groups[0]["lr"], restored.param_groups[0]["weight_decay"]) == (0.5, 0.3)


def test_training_on_leaves_the_tensors_that_were_given_as_they_are() -> None:
    model = _model()
    optimizer = _adamw(model)
    _train(model, optimizer, [0])
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    given = {name: value.clone() for name, value in tensors.items()}
    kept = {name: value.clone() for name, value in given.items()}
    restore_optimizer(optimizer, model.named_parameters(), given, extra, source="here")
    _train(model, optimizer, [1])
    assert all(torch.equal(given[name], kept[name]) for name in kept)


def test_a_parameter_that_was_never_trained_starts_afresh() -> None:
    model = _model()
    model[0].requires_grad_(False)
    optimizer = _adamw(model)
    _train(model, optimizer, [0])
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    assert "exp_avg/0.weight" not in tensors
    restored = _adamw(model)
    restore_optimizer(restored, model.named_parameters(), tensors, extra, source="here")
    assert restored.state.keys() == set(model[1:].parameters())


def test_state_that_does_not_fit_is_refused() -> None:
    model = _model()
    optimizer = _adamw(model)
    _train(model, optimizer, [0])
    tensors, extra = optimizer_tensors(optimizer, model.named_parameters())
    wide, sgd = _model(width=5), SGD(model.parameters(), lr=0.1)
    with pytest.raises(CheckpointError, match=r"^here holds the state of AdamW, and this run uses SGD"):
        restore_optimizer(sgd, model.named_parameters(), tensors, extra, source="here")
    with pytest.raises(
        CheckpointError, match=r"exp_avg/0\.weight has the shape \(4, 3\), and the parameter here \(5, 3\)"
    ):
        restore_optimizer(_adamw(wide), wide.named_parameters(), tensors, extra, source="here")
    part = AdamW(model[0].parameters())
    with pytest.raises(
        CheckpointError, match=r"holds the optimizer state step/2\.weight, and this run trains no such"
    ):
        restore_optimizer(part, model.named_parameters(), tensors, extra, source="here")
