import pytest
import torch
from torch import nn

from parallax.checkpoint.load import load_weights
from parallax.errors import CheckpointError


def _model(width: int = 4, depth: int = 2) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


def test_weights_are_copied_into_the_parameters_that_are_there() -> None:
    source, model = _model(), _model()
    before = dict(model.named_parameters())
    load_weights(model, source.state_dict(), source="here")
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in source.state_dict().items())
    assert model[0].weight.data_ptr() != source[0].weight.data_ptr()


def test_weights_are_cast_to_the_type_of_the_model() -> None:
    source, model = _model(), _model().bfloat16()
    load_weights(model, source.state_dict(), source="here")
    assert model[0].weight.dtype == torch.bfloat16
    assert torch.equal(model[0].weight, source[0].weight.bfloat16())


def test_a_frozen_parameter_is_loaded_and_stays_frozen() -> None:
    model = _model().requires_grad_(False)
    load_weights(model, _model().state_dict(), source="here")
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (_model(depth=1), r"2 weights missing \(1\.weight, 1\.bias\)"),
        (_model(depth=5), r"6 unexpected \(2\.weight, 2\.bias, 3\.weight, …\)"),
        (_model(width=6), r"4 of another shape \(0\.weight is 6x6 there and 4x4 here, "),
    ],
    ids=["fewer layers", "more layers", "wider"],
)
def test_another_architecture_is_refused_in_one_line_and_nothing_changes(other: nn.Module, complaint: str) -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=rf"^runs/x holds a model of another architecture: {complaint}"
    ) as caught:
        load_weights(model, other.state_dict(), source="runs/x")
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_model_without_memory_is_a_mistake_of_the_caller() -> None:
    with torch.device("meta"):
        model = _model()
    with pytest.raises(ValueError, match="meta device"):
        load_weights(model, _model().state_dict(), source="here")
