from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from parallax.checkpoint.load import load_weights
from parallax.checkpoint.tensor_file import load_tensors, save_tensors
from parallax.errors import CheckpointError


class Tied(nn.Module):
    """An embedding and a head that are one matrix, or two."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


def test_a_tied_weight_is_stored_once_and_read_under_both_names(tmp_path: Path) -> None:
    model = Tied(tied=True)
    path = tmp_path / "model.safetensors"
    save_tensors(path, model.state_dict())
    with safe_open(path, framework="pt") as file:
        assert list(file.keys()) == ["embedding.weight"]
    found = load_tensors(path)
    assert found.keys() == {"embedding.weight", "head.weight"}
    assert found["embedding.weight"] is found["head.weight"]
    assert torch.equal(found["head.weight"], model.head.weight)


def test_views_of_one_storage_that_are_not_the_same_are_stored_each(tmp_path: Path) -> None:
    buffer = torch.arange(12.0).reshape(3, 4)
    tensors = {"all": buffer, "rows": buffer[:2], "columns": buffer.T, "tail": buffer[1:]}
    save_tensors(tmp_path / "views", tensors)
    found = load_tensors(tmp_path / "views")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_changing_what_was_read_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    save_tensors(tmp_path / "file", {"a": torch.ones(1000)})
    load_tensors(tmp_path / "file")["a"].zero_()
    assert torch.equal(load_tensors(tmp_path / "file")["a"], torch.ones(1000))


@pytest.mark.parametrize("given", [["embedding.weight"], ["head.weight"], ["embedding.weight", "head.weight"]])
def test_a_tied_model_takes_its_weight_under_either_name_and_stays_tied(given: list[str]) -> None:
    model, weight = Tied(tied=True), torch.randn(5, 3)
    load_weights(model, dict.fromkeys(given, weight), source="here")
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model.head.weight, weight)


def test_an_untied_model_can_start_from_tied_weights(tmp_path: Path) -> None:
    source, model = Tied(tied=True), Tied(tied=False)
    save_tensors(tmp_path / "file", source.state_dict())
    load_weights(model, load_tensors(tmp_path / "file"), source="here")
    assert torch.equal(model.head.weight, source.head.weight)
    assert model.head.weight is not model.embedding.weight


def test_untied_weights_are_refused_by_a_model_that_ties_them() -> None:
    model = Tied(tied=True)
    with pytest.raises(
        CheckpointError, match=r"embedding\.weight and head\.weight differ there and are one weight here"
    ):
        load_weights(model, Tied(tied=False).state_dict(), source="here")
