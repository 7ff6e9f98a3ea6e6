"""Which parameters an engine trains, and that ties between them outlive materialising."""

import torch
from small_engines import forward_backward, gradients, random_windows, small_engine, weights


def test_parameters_that_match_a_pattern_train_and_all_others_are_frozen() -> None:
    engine = small_engine(grad_clip=0.5)
    engine.set_trainable(["tracks.0.*", "embedding.weight"])
    before = weights(engine)
    forward_backward(engine, random_windows(4))
    found = gradients(engine)
    expected_norm = torch.cat([gradient.flatten() for gradient in found.values()]).norm()
    torch.testing.assert_close(engine.clip_and_step(0.1), expected_norm)
    after = weights(engine)
    moved = {name for name in before if not torch.equal(after[name], before[name])}
    trained = {name for name in before if name.startswith("tracks.0.") or name == "embedding.weight"}
    assert len(trained) > 1
    assert moved == trained == found.keys()


def test_patterns_given_later_replace_the_earlier_ones() -> None:
    engine = small_engine()
    engine.set_trainable([])
    assert not any(parameter.requires_grad for parameter in engine.model.parameters())
    engine.set_trainable(["head.weight"])
    trained = [name for name, parameter in engine.model.named_parameters() if parameter.requires_grad]
    assert trained == ["head.weight"]
    engine.set_trainable(["*"])
    assert all(parameter.requires_grad for parameter in engine.model.parameters())


def test_a_tied_embedding_is_one_parameter_after_materialising_and_after_training() -> None:
    engine = small_engine(tie_embeddings=True)
    assert engine.model.head.weight is engine.model.embedding.weight
    trained = [p for group in engine.optimizer.param_groups for p in group["params"]]
    assert sum(p is engine.model.embedding.weight for p in trained) == 1
    assert "head.weight" not in weights(engine)
    forward_backward(engine, random_windows(4))
    before, gradient = engine.model.head.weight.detach().clone(), gradients(engine)["embedding.weight"]
    engine.clip_and_step(0.1)
    torch.testing.assert_close(engine.model.head.weight.detach(), before - 0.1 * gradient)


def test_nothing_is_on_the_meta_device_and_the_weights_are_those_that_were_filled_in() -> None:
    engine = small_engine(seed=3)
    assert all(parameter.device.type == "cpu" for parameter in engine.model.parameters())
    torch.testing.assert_close(weights(engine), weights(small_engine(seed=3)), rtol=0, atol=0)
    assert not torch.equal(engine.model.embedding.weight, small_engine(seed=4).model.embedding.weight)
