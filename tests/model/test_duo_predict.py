"""What a query of duo-predict knows of its answer: nothing at any depth if strict, through two hops if not."""

import pytest
import torch
from small_models import random_tokens
from torch import Tensor
from zoo_models import zoo_config, zoo_model

from parallax.model.gpt2_duo_predict import Gpt2DuoPredict, duo_mask

LENGTH = 6
DUO = {"published": "duo", "strict": "duo strict"}


def influence(model: Gpt2DuoPredict, tokens: Tensor, *, gaps: bool, place: int, of: int) -> float:
    """The largest derivative of the logits at a place with respect to the embedding vector of token `of`."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = model.embedding.register_forward_hook(keep)
    try:
        if gaps:
            logits = model.gap_logits(tokens)[:, place]
        else:
            logits = model.head.logits(model._slots(tokens, None, None)[:, 2 * place])
    finally:
        handle.remove()
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=logits.dtype)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), seen)
    return gradient[:, of].abs().max().item()


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("form", DUO)
def test_no_token_s_slot_knows_the_next_token(form: str, depth: int) -> None:
    config = zoo_config(DUO[form], num_layers=depth)
    model, tokens = zoo_model(config), random_tokens(config, length=LENGTH)
    for place in range(LENGTH - 1):
        assert influence(model, tokens, gaps=False, place=place, of=place + 1) == 0.0
        assert influence(model, tokens, gaps=False, place=place, of=place) > 0


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_no_path_leads_from_the_answer_to_a_strict_query_at_any_depth(depth: int) -> None:
    config = zoo_config("duo strict", num_layers=depth)
    model, tokens = zoo_model(config), random_tokens(config, length=LENGTH)
    for place in range(LENGTH - 1):
        assert influence(model, tokens, gaps=True, place=place, of=place) == 0.0
        assert influence(model, tokens, gaps=True, place=place, of=place + 1) > 0
        assert place == 0 or influence(model, tokens, gaps=True, place=place, of=place - 1) > 0
        assert all(influence(model, tokens, gaps=True, place=place, of=of) == 0 for of in range(place + 2, LENGTH))


@pytest.mark.parametrize(("depth", "leaks"), [(1, False), (2, True), (4, True)])
def test_the_published_mask_leaks_the_answer_from_the_second_layer_on(depth: int, leaks: bool) -> None:
    config = zoo_config("duo", num_layers=depth)
    model, tokens = zoo_model(config), random_tokens(config, length=LENGTH)
    for place in range(LENGTH - 1):
        assert (influence(model, tokens, gaps=True, place=place, of=place) > 1e-6) == leaks


@pytest.mark.parametrize("form", DUO)
def test_the_mask_is_the_design_notes(form: str) -> None:
    """Slots counted from 1; of a strict query, i + 1 is among the embeddings behind the slots."""
    strict = form == "strict"
    mask = duo_mask(LENGTH, torch.device("cpu"), strict=strict)[0, 0]
    num_slots = 2 * LENGTH - 1
    assert mask.shape == (num_slots, num_slots + (LENGTH if strict else 0))
    for i in range(1, num_slots + 1):
        seen = set(range(1, i + 1, 2)) if i % 2 else set(range(1, i - 1, 2)) | {i}
        if i % 2 == 0:
            seen |= {num_slots + i // 2 + 1} if strict else {i + 1}
        assert {j + 1 for j in mask[i - 1].nonzero()[:, 0].tolist()} == seen


@pytest.mark.parametrize("form", DUO)
def test_queries_of_one_document_know_nothing_of_another(form: str) -> None:
    config = zoo_config(DUO[form])
    model, tokens = zoo_model(config), random_tokens(config, length=LENGTH)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    changed = tokens.clone()
    changed[:, 3:] = (tokens[:, 3:] + 1) % config.vocab_size
    states, others = (model._slots(t, documents, None) for t in (tokens, changed))
    torch.testing.assert_close(states[:, :6], others[:, :6], rtol=0, atol=0)
    assert not torch.equal(states[:, 6:], others[:, 6:])
