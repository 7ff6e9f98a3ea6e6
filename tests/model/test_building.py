"""From a configuration to a model with memory and weights."""

import pytest
import torch
from small_models import random_tokens, small_config

from parallax.config.reference import sections_of
from parallax.config.run import RunConfig
from parallax.errors import BackendError
from parallax.model.registry import ARCHITECTURES, build_model, materialize


def test_a_built_model_takes_no_memory_until_it_is_materialised() -> None:
    model = build_model(small_config())
    assert all(parameter.is_meta for parameter in model.parameters())
    materialize(model, "cpu", seed=0)
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert model(random_tokens(small_config())).isfinite().all()


def test_parameters_are_all_the_state_there_is() -> None:
    model = build_model(small_config())
    assert not list(model.buffers())


def test_tied_embeddings_stay_one_parameter_through_materialisation_and_loading() -> None:
    config = small_config(tie_embeddings=True)
    model = materialize(build_model(config), "cpu", seed=0)
    assert model.head.weight is model.embedding.weight
    assert "head.weight" not in dict(model.named_parameters())
    model.load_state_dict(materialize(build_model(config), "cpu", seed=1).state_dict())
    assert model.head.weight is model.embedding.weight


def test_untied_embeddings_are_two_parameters() -> None:
    model = materialize(build_model(small_config()), "cpu", seed=0)
    assert model.head.weight is not model.embedding.weight
    assert model.head.weight.shape == model.embedding.weight.shape


def test_every_architecture_of_the_configuration_can_be_built() -> None:
    configured = {
        kind.model_fields["architecture"].default for kind in sections_of(RunConfig.model_fields["model"])
    }
    assert set(ARCHITECTURES) == configured


def test_a_backend_asked_for_by_name_is_the_one_in_every_block() -> None:
    model = build_model(small_config(), attention_backend="eager")
    blocks = [block for track in model.tracks.values() for block in track.blocks]
    assert [block.attention.backend.name for block in blocks] == ["eager"] * 4


def test_an_unknown_backend_is_refused_before_anything_is_built() -> None:
    with pytest.raises(BackendError, match="did you mean 'eager'"):
        build_model(small_config(), attention_backend="eagre")


def test_narrow_weights_give_wide_logits() -> None:
    model = materialize(build_model(small_config()).to(torch.bfloat16), "cpu", seed=0)
    assert model(random_tokens(small_config())).dtype == torch.float32


def test_a_forward_under_autocast_is_near_the_forward_in_fp32() -> None:
    model, tokens = materialize(build_model(small_config()), "cpu", seed=0), random_tokens(small_config())
    exact = model(tokens, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(tokens, tokens)
    torch.testing.assert_close(rounded.objective_sum, exact.objective_sum, rtol=5e-3, atol=0.0)
    rounded.objective_sum.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
