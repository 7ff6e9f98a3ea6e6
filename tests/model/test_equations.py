"""The model against its equations, written out a second time in plain tensor algebra."""

from math import sqrt

import pytest
import torch
from small_models import random_tokens, small_config, small_model
from torch import Tensor

from parallax.config.models.dual_track import DualTrackConfig
from parallax.model.dual_track import DualTrack
from parallax.model.head import IGNORE_INDEX, Objective

Weights = dict[str, Tensor]


def rms_norm(h: Tensor, weight: Tensor, eps: float) -> Tensor:
    return h / (h.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    frequencies = [theta ** (-2 * i / x.shape[-1]) for i in range(half)]
    angle = torch.tensor([[position * f for f in frequencies] for position in range(x.shape[-2])], dtype=x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)


def attention(h: Tensor, qkv: Tensor, out: Tensor, c: DualTrackConfig) -> Tensor:
    width = c.hidden_size // c.num_heads
    rows = [h @ qkv[i : i + width].T for i in range(0, len(qkv), width)]
    future = torch.ones(h.shape[1], h.shape[1]).triu(1).bool()
    heads = []
    for head in range(c.num_heads):
        group = head // (c.num_heads // c.num_kv_heads)
        key = rotate(rows[c.num_heads + group], c.rope_theta)
        value = rows[c.num_heads + c.num_kv_heads + group]
        scores = (rotate(rows[head], c.rope_theta) @ key.mT / sqrt(width)).exp().masked_fill(future, 0.0)
        heads.append(scores / scores.sum(-1, keepdim=True) @ value)
    return torch.cat(heads, dim=-1) @ out.T


def block(h: Tensor, w: Weights, name: str, c: DualTrackConfig) -> Tensor:
    n = rms_norm(h, w[f"{name}.attention_norm.weight"], c.norm_eps)
    h = h + attention(n, w[f"{name}.attention.qkv.weight"], w[f"{name}.attention.output.weight"], c)
    n = rms_norm(h, w[f"{name}.mlp_norm.weight"], c.norm_eps)
    w1, w2 = w[f"{name}.mlp.gate_up.weight"].chunk(2)
    gate = n @ w1.T
    return h + (gate * torch.sigmoid(gate) * (n @ w2.T)) @ w[f"{name}.mlp.down.weight"].T


def restated_logits(w: Weights, tokens: Tensor, c: DualTrackConfig) -> Tensor:
    x = w["embedding.weight"][tokens]
    inputs = dict.fromkeys(range(c.num_tracks), x)
    for run in range(1, c.num_loops + 1):
        outputs = {}
        for k, h in inputs.items():
            for layer in range(c.num_layers):
                h = block(h, w, f"tracks.{k}.blocks.{layer}", c)
            outputs[k] = h
        if run < c.num_loops:
            adds = c.use_swap if c.reinject == "auto" else c.reinject
            for k in inputs:
                came = outputs[(k - 1) % c.num_tracks] if c.use_swap else outputs[k]
                inputs[k] = came + x if adds else came
    fused = rms_norm(sum(outputs.values(), torch.zeros(())), w["norm.weight"], c.output_norm_eps)
    return fused @ w["embedding.weight" if c.tie_embeddings else "head.weight"].T


def restated_loss(logits: Tensor, targets: Tensor, objective: Objective) -> Tensor:
    total = logits.new_zeros(())
    for row, target in zip(logits.flatten(0, 1), targets.flatten().tolist(), strict=True):
        if target != IGNORE_INDEX:
            log_partition = row.exp().sum().log()
            surprise = log_partition - row
            total = total + (1 - objective.label_smoothing) * surprise[target]
            total = total + objective.label_smoothing * surprise.mean() + objective.z_loss * log_partition**2
    return total


def assert_equal_to_restatement(model: DualTrack, config: DualTrackConfig) -> None:
    tokens, targets = random_tokens(config, length=5), random_tokens(config, length=5, seed=2)
    targets[0, 3] = IGNORE_INDEX
    objective = Objective(label_smoothing=0.1, z_loss=0.01, chunk_tokens=4)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}

    logits = restated_logits(weights, tokens, config)
    loss = restated_loss(logits, targets, objective)
    loss.backward()
    output = model(tokens, targets, objective=objective)
    output.objective_sum.backward()

    exact = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(model(tokens), logits, **exact)
    torch.testing.assert_close(output.objective_sum, loss, **exact)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, weights[name].grad, **exact, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("reinject", ["auto", True, False])
@pytest.mark.parametrize("use_swap", [True, False])
@pytest.mark.parametrize("num_loops", [1, 2, 3])
@pytest.mark.parametrize("num_tracks", [1, 2, 3])
def test_logits_loss_and_every_gradient_follow_the_equations(
    num_tracks: int, num_loops: int, use_swap: bool, reinject: bool | str
) -> None:
    config = small_config(
        num_tracks=num_tracks, num_loops=num_loops, use_swap=use_swap, reinject=reinject, num_layers=1
    )
    assert_equal_to_restatement(small_model(config), config)


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_grouped_heads_and_tied_embeddings_follow_the_equations(num_kv_heads: int, tie_embeddings: bool) -> None:
    config = small_config(num_kv_heads=num_kv_heads, tie_embeddings=tie_embeddings, num_tracks=3)
    assert_equal_to_restatement(small_model(config), config)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_either_attention_backend_gives_the_equations(backend: str) -> None:
    config = small_config()
    assert_equal_to_restatement(small_model(config, backend=backend), config)
