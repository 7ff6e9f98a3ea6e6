"""The global gradient norm: g * min(1, c / (|g| + 1e-6)), the norm that is returned being |g|."""

import pytest
import torch
from small_engines import forward_backward, gradients, random_windows, small_engine, weights


@pytest.mark.parametrize("limit", [0.01, 0.5, 1e6])
def test_an_update_follows_the_gradient_clipped_as_a_whole(limit: float) -> None:
    engine = small_engine(grad_clip=limit)
    forward_backward(engine, random_windows(4))
    before, found = weights(engine), gradients(engine)
    norm = torch.cat([gradient.flatten() for gradient in found.values()]).square().sum().sqrt()
    assert 0.5 < norm < 1e6
    factor = min(1.0, limit / (float(norm) + 1e-6))
    expected = {name: before[name] - 0.25 * factor * found[name] for name in before}
    torch.testing.assert_close(engine.clip_and_step(0.25), norm)
    torch.testing.assert_close(weights(engine), expected, rtol=1e-10, atol=1e-13)


def test_zero_does_not_clip_and_the_norm_is_still_measured() -> None:
    engine = small_engine(grad_clip=0.0)
    forward_backward(engine, random_windows(4))
    before, found = weights(engine), gradients(engine)
    norm = engine.clip_and_step(0.25)
    torch.testing.assert_close(norm.square(), sum(gradient.square().sum() for gradient in found.values()))
    torch.testing.assert_close(weights(engine), {n: before[n] - 0.25 * found[n] for n in before})


def test_every_parameter_group_gets_the_learning_rate_of_the_step() -> None:
    def two_groups(model: torch.nn.Module) -> torch.optim.Optimizer:
        first, *others = model.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 1.0}, {"params": others, "lr": 2.0}])

    engine = small_engine(build_optimizer=two_groups)
    forward_backward(engine, random_windows(2))
    before, found = weights(engine), gradients(engine)
    engine.clip_and_step(0.125)
    torch.testing.assert_close(weights(engine), {n: before[n] - 0.125 * found[n] for n in before})
