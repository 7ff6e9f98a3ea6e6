"""What is found in a model against a plain statement of its equations, and where answers are known beforehand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from probed_models import Edit, drawn_batches, drawn_model, restated_fused, restated_losses, unchanged
from torch import Tensor

from evaluation.tracks.ablation import Ablation, ablated, list_ablations
from evaluation.tracks.found import Found
from evaluation.tracks.probe import ABLATIONS, FUSE, PASSES, SHOWN, probe
from evaluation.tracks.states import capture_states
from evaluation.tracks.sweep import increments_of
from parallax.errors import ConfigError, DataError, NonFiniteError
from parallax.model.dual_track import DualTrack

SHAPES = [
    {"num_tracks": 2},
    {"num_tracks": 3, "num_loops": 3},
    {"num_tracks": 2, "use_swap": False, "reinject": True},
    {"num_tracks": 2, "use_swap": False},
    {"num_tracks": 3, "num_loops": 1},
    {"num_tracks": 2, "num_loops": 3, "reinject": False},
]


def look(model: DualTrack, show: Sequence[str] = SHOWN) -> Found:
    return probe(model, drawn_batches(model), source="a model", data="noise", show=show)


def all_text(model: DualTrack) -> tuple[Tensor, Tensor]:
    tokens, targets = zip(*drawn_batches(model), strict=True)
    return torch.cat(tokens), torch.cat(targets)


def edits(ablation: Ablation, means: list[dict[int, Tensor]]) -> tuple[Edit, Edit]:
    """What is sent and what is summed under an ablation."""

    def replaced(outputs: dict[int, Tensor], loop: int) -> dict[int, Tensor]:
        k = ablation.track
        if k is not None:
            value = means[loop - 1][k] if ablation.replacement == "mean" else torch.zeros(())
            outputs[k] = torch.zeros_like(outputs[k]) + value
        return outputs

    return (replaced if ablation.everywhere else unchanged), replaced


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_ablated_loss_follows_the_equations(shape: dict[str, object]) -> None:
    model = drawn_model(**shape)
    tokens, targets = all_text(model)
    outputs: list[dict[int, Tensor]] = []
    intact = restated_losses(model, restated_fused(model, tokens, outputs_of_passes=outputs), targets).mean()
    means = [{k: output.mean((0, 1)) for k, output in loop.items()} for loop in outputs]
    found = look(model)
    assert found.loss.value == pytest.approx(intact.item(), rel=1e-10)
    ablations = list_ablations(model.config)
    assert [one.name for one in found.ablations] == [one.name for one in ablations]
    for one, ablation in zip(found.ablations, ablations, strict=True):
        sent, summed = edits(ablation, means)
        fused = restated_fused(model, tokens, sent=sent, summed=summed, unswapped=ablation.unswapped)
        losses = restated_losses(model, fused, targets)
        assert one.loss.value == pytest.approx(losses.mean().item(), rel=1e-10), one.name
        assert one.change.value == pytest.approx((losses.mean() - intact).item(), abs=1e-10), one.name


def test_what_can_be_taken_out_is_listed_once() -> None:
    names = [one.name for one in list_ablations(drawn_model(num_loops=3).config)]
    assert names[:4] == [
        f"track 0 {how}" for how in ("zero at the fuse", "mean at the fuse", "zero everywhere", "mean everywhere")
    ]
    assert names[-3:] == ["no swap after pass 1", "no swap after pass 2", "no swap at all"]
    assert len(names) == len(set(names)) == 11
    apart = [one.name for one in list_ablations(drawn_model(use_swap=False).config)]
    assert apart == [f"track {k} {how} at the fuse" for k in (0, 1) for how in ("zero", "mean")]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_parts_sum_to_the_fused_vector_and_their_shares_to_one(shape: dict[str, object]) -> None:
    model = drawn_model(**shape)
    tokens, targets = all_text(model)
    states, _ = capture_states(model, tokens, targets)
    assert torch.allclose(states.fused, restated_fused(model, tokens), rtol=1e-10)
    parts = increments_of(states, model.config.reinjects)
    assert torch.allclose(parts.sum(0), states.fused, rtol=1e-9, atol=1e-10)
    found = look(model, [FUSE])
    for contributions in (found.outputs, found.increments):
        assert sum(part.share.value for part in contributions) == pytest.approx(1, abs=1e-10)
    assert len(found.increments) == 1 + model.config.num_tracks * model.config.num_loops


def test_a_part_is_taken_from_the_fused_vector_alone() -> None:
    model = drawn_model()
    tokens, targets = all_text(model)
    outputs: list[dict[int, Tensor]] = []
    fused = restated_fused(model, tokens, outputs_of_passes=outputs)
    intact = restated_losses(model, fused, targets)
    x = model.embedding.weight[tokens]
    read_in_pass_2 = outputs[0][1] + x  # by track 0
    added = {
        "embedding": 4 * x,
        "track 1, pass 1": outputs[0][1] - x,
        "track 0, pass 2": outputs[1][0] - read_in_pass_2,
    }
    found = look(model)
    for part in found.increments:
        if part.name in added:
            vector = added[part.name]
            change = (restated_losses(model, fused - vector, targets) - intact).mean().item()
            assert part.loss_change.value == pytest.approx(change, abs=1e-10), part.name
            share = ((vector * fused).sum(-1) / fused.pow(2).sum(-1)).mean().item()
            assert part.share.value == pytest.approx(share, abs=1e-10)
            norm = (vector.norm(dim=-1) / fused.norm(dim=-1)).mean().item()
            assert part.norm.value == pytest.approx(norm, abs=1e-10)
    early = restated_losses(model, outputs[0][0] + outputs[0][1], targets).mean().item()
    assert [loss.value for loss in found.fused_early] == pytest.approx([early, found.loss.value])


def test_taking_a_track_from_the_fused_vector_is_its_ablation_at_the_fuse() -> None:
    found = look(drawn_model(num_tracks=3))
    at_fuse = {one.name: one.change for one in found.ablations}
    for part in found.outputs:
        assert part.loss_change == pytest.approx(at_fuse[f"{part.name} zero at the fuse"], abs=1e-10)


def test_cka_and_cosine_are_those_of_the_states_of_the_equations() -> None:
    model = drawn_model(num_layers=1)
    outputs: list[dict[int, Tensor]] = []
    tokens, _ = all_text(model)
    restated_fused(model, tokens, outputs_of_passes=outputs)
    found = look(model)
    assert found.tracks is not None
    for loop in (0, 1):
        a, b = outputs[loop][0], outputs[loop][1]
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().item()
        assert found.tracks.cosine.value[0, loop, 1] == pytest.approx(cosine, abs=1e-10)
        hsics = np.zeros(3)
        for row in range(len(tokens)):
            for place, (x, y) in enumerate(((a, b), (a, a), (b, b))):
                hsics[place] += plain_hsic(x[row].detach().numpy(), y[row].detach().numpy())
        expected = hsics[0] / math.sqrt(hsics[1] * hsics[2])
        assert found.tracks.cka.value[0, loop, 1] == pytest.approx(expected, abs=1e-9)


def plain_hsic(x: np.ndarray, y: np.ndarray) -> float:
    kx, ky = x @ x.T, y @ y.T
    np.fill_diagonal(kx, 0)
    np.fill_diagonal(ky, 0)
    n, one = len(x), np.ones(len(x))
    corner = (one @ kx @ one) * (one @ ky @ one) / ((n - 1) * (n - 2))
    return float((np.trace(kx @ ky) + corner - 2 / (n - 2) * (one @ kx @ ky @ one)) / (n * (n - 3)))


def test_equal_tracks_are_alike_in_everything_and_lose_nothing_without_the_swap() -> None:
    model = drawn_model(num_loops=3)
    model.tracks["1"].load_state_dict(model.tracks["0"].state_dict())
    found = look(model)
    assert found.tracks is not None
    assert found.tracks.cka.value == pytest.approx(np.ones((1, 3, 3)), abs=1e-9)
    assert found.tracks.cosine.value == pytest.approx(np.ones((1, 3, 3)), abs=1e-9)
    assert [part.share.value for part in found.outputs] == pytest.approx([0.5, 0.5])
    changes = {one.name: one.change for one in found.ablations}
    for name in ("no swap after pass 1", "no swap after pass 2", "no swap at all"):
        assert changes[name] == (0.0, 0.0, 0.0)


def test_drawn_tracks_read_the_same_and_then_differ() -> None:
    found = look(drawn_model())
    assert found.tracks is not None
    assert found.tracks.cka.value[0, 0, 0] == pytest.approx(1)
    assert found.tracks.cosine.value[0, 0, 0] == pytest.approx(1)
    assert found.tracks.cka.value[0, :, -1].max() < 0.9


def test_taking_out_a_swap_that_is_off_changes_nothing() -> None:
    model = drawn_model(use_swap=False, num_loops=3)
    for tokens, targets in drawn_batches(model):
        whole = model(tokens, targets).nll_sum
        with ablated(model, Ablation("", unswapped=frozenset({1, 2})), torch.zeros(2, 3, 16)):
            assert model(tokens, targets).nll_sum == whole


def test_one_track_without_its_only_term_predicts_evenly() -> None:
    model = drawn_model(num_tracks=1)
    tokens, targets = drawn_batches(model)[0]
    with ablated(model, Ablation("", track=0), torch.zeros(1, 2, 16)):
        output = model(tokens, targets)
    assert output.nll_sum.item() == pytest.approx(targets.numel() * math.log(13))


def test_one_track_is_shown_by_its_passes_only() -> None:
    model = drawn_model(num_tracks=1, num_loops=3)
    with pytest.raises(ConfigError, match=r"one track.*--show passes,fuse shows"):
        look(model)
    found = look(model, [PASSES, FUSE])
    assert found.tracks is None
    assert found.passes is not None
    assert found.passes.pairs == [(0, 1), (0, 2)]
    assert [part.name for part in found.increments] == ["embedding", *(f"track 0, pass {r}" for r in (1, 2, 3))]
    assert look(drawn_model(num_tracks=1, num_loops=1), [PASSES, FUSE]).passes is None


def test_a_model_is_as_it_was_afterwards() -> None:
    model = drawn_model()
    model.train()
    exchange = model.exchange
    look(model)
    assert model.exchange is exchange
    assert model.training
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks)


def test_the_batch_size_changes_nothing() -> None:
    model = drawn_model()
    tokens, targets = all_text(model)
    other = probe(model, [(tokens, targets)], source="a model", data="noise")
    found = look(model)
    for one, two in zip(found.ablations, other.ablations, strict=True):
        assert one.change == pytest.approx(two.change, abs=1e-10)
    assert found.tracks is not None
    assert other.tracks is not None
    assert found.tracks.cka.low == pytest.approx(other.tracks.cka.low, abs=1e-9)


def test_tokens_that_are_not_predicted_count_nowhere() -> None:
    model = drawn_model()
    batches = drawn_batches(model)
    tokens, targets = (part.clone() for part in batches[-1])
    targets[1, 6:] = -100
    short = probe(model, [*batches[:-1], (tokens, targets)], source="", data="")
    tokens[1, 6:] = 0
    assert short.setting.tokens == 4 * 12 - 6
    other = probe(model, [*batches[:-1], (tokens, targets)], source="", data="")
    assert other.to_json() == short.to_json()


def test_documents_are_read_apart_where_they_were_in_training() -> None:
    model = drawn_model()
    batches = drawn_batches(model)
    apart = probe(model, batches, source="", data="", separating_eos_id=3, show=[FUSE])
    assert apart.loss.value != pytest.approx(look(model, [FUSE]).loss.value, abs=1e-6)


def test_documents_are_apart_with_something_taken_out_too() -> None:
    model = drawn_model()
    model.tracks["1"].load_state_dict(model.tracks["0"].state_dict())
    found = probe(model, drawn_batches(model), source="", data="", separating_eos_id=3, show=[ABLATIONS])
    # Equal tracks lose nothing without the swap, unless they were read in another way.
    assert found.ablations[-1].name == "no swap after pass 1"
    assert found.ablations[-1].change == (0.0, 0.0, 0.0)


def test_too_little_text_and_broken_weights_are_said() -> None:
    model = drawn_model()
    tokens, targets = drawn_batches(model)[0]
    with pytest.raises(DataError, match="1 windows of text give no interval"):
        probe(model, [(tokens[:1], targets[:1])], source="", data="noise")
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        look(model)
    with pytest.raises(ConfigError, match="--show heads: expected tracks, passes, fuse, ablations"):
        look(model, ["heads"])
