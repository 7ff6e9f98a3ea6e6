"""Documents packed into one window that do not see each other."""

from typing import Any

import pytest
import torch
from small_models import small_config, small_model
from torch import Tensor

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.documents import document_ids, document_mask
from parallax.model.dual_track import DualTrack

EOS = 10
LENGTHS = (4, 1, 6, 5)
EXACT: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-11}


def packed_row(seed: int) -> Tensor:
    """(16,) the end of a document, one of nothing but EOS, and two that begin with EOS."""
    tokens = torch.randint(EOS, (sum(LENGTHS),), generator=torch.Generator().manual_seed(seed))
    starts = torch.tensor(LENGTHS).cumsum(0)[:-1]
    tokens[starts] = EOS
    return tokens


def packed() -> tuple[Tensor, Tensor]:
    """Tokens and targets (2, 16), each target the next token of the row."""
    windows = torch.stack([torch.cat((packed_row(seed), torch.tensor([EOS]))) for seed in (1, 2)])
    return windows[:, :-1], windows[:, 1:]


def gradients(model: DualTrack) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_like_documents_alone(model: DualTrack) -> None:
    tokens, targets = packed()
    documents = document_ids(tokens, EOS)
    logits = model(tokens, documents=documents)
    model(tokens, targets, documents=documents).objective_sum.backward()
    together = gradients(model)

    pieces = zip(tokens.split(LENGTHS, 1), targets.split(LENGTHS, 1), strict=True)
    alone = []
    for inputs, wanted in pieces:
        alone.append(model(inputs))
        model(inputs, wanted).objective_sum.backward()
    torch.testing.assert_close(logits, torch.cat(alone, dim=1), **EXACT)
    apart = gradients(model)
    assert together.keys() == apart.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("backend", ["eager", "sdpa", "chunked"])
@pytest.mark.parametrize(
    "changes",
    [{"num_tracks": 1, "num_loops": 1}, {"num_tracks": 2}, {"num_tracks": 3, "num_loops": 3, "num_kv_heads": 1}],
    ids=["one track, one pass", "two tracks", "three tracks, three passes, one key head"],
)
def test_logits_and_gradients_are_those_of_the_documents_read_alone(changes: dict[str, Any], backend: str) -> None:
    assert_like_documents_alone(small_model(small_config(**changes), backend=backend))


def test_without_the_mask_a_document_does_see_the_one_before() -> None:
    model = small_model(small_config())
    tokens, _ = packed()
    later = slice(LENGTHS[0], None)
    apart, seen = model(tokens, documents=document_ids(tokens, EOS)), model(tokens)
    assert (apart - seen)[:, later].abs().max() > 0.1
    torch.testing.assert_close(apart[:, : LENGTHS[0]], seen[:, : LENGTHS[0]], **EXACT)


def test_no_gradient_flows_from_one_document_into_another() -> None:
    model = small_model(small_config())
    tokens, targets = packed()
    embedded: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    model.embedding.register_forward_hook(keep)
    first, last = sum(LENGTHS[:2]), sum(LENGTHS[:3])
    only_third = torch.full_like(targets, -100)
    only_third[:, first:last] = targets[:, first:last]
    model(tokens, only_third, documents=document_ids(tokens, EOS)).objective_sum.backward()
    gradient = embedded[0].grad
    assert gradient is not None
    assert gradient[:, first:last].abs().sum(-1).min() > 0
    assert gradient[:, :first].abs().max() == 0
    assert gradient[:, last:].abs().max() == 0


def test_eos_is_the_first_token_of_the_document_behind_it() -> None:
    tokens = torch.tensor([[1, EOS, 2, 3, EOS, EOS, 4], [EOS, 1, 1, 1, 1, 1, 1]])
    assert document_ids(tokens, EOS).tolist() == [[0, 1, 1, 1, 2, 3, 3], [1] * 7]
    assert document_mask(document_ids(tokens, EOS))[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_reading_on_from_eos_token_by_token_gives_the_logits_of_training() -> None:
    model = small_model(small_config())
    before, document = [3, 1, 4, 1, 5], [EOS, 2, 7, 1, 8]
    window = torch.tensor([[*before, *document, EOS, 9]])
    trained = model(window, documents=document_ids(window, EOS))[:, len(before) : len(before) + len(document)]
    cache = model.build_cache(1, dtype=torch.float64)
    generated = [model(torch.tensor([[token]]), cache=cache) for token in document]
    torch.testing.assert_close(torch.cat(generated, dim=1), trained, **EXACT)


def test_a_cache_and_documents_exclude_each_other() -> None:
    model = small_model(small_config())
    tokens, _ = packed()
    cache = model.build_cache(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="give either documents or a cache"):
        model(tokens, cache=cache, documents=document_ids(tokens, EOS))


def test_one_document_is_plain_causal_attention() -> None:
    config: DualTrackConfig = small_config()
    model = small_model(config)
    tokens = torch.zeros(2, 8, dtype=torch.long)
    torch.testing.assert_close(model(tokens, documents=document_ids(tokens, EOS)), model(tokens), **EXACT)
