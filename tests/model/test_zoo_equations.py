"""The GPT-2 family against its equations, written out a second time in plain tensor algebra, a token at a time."""

from math import exp, pi, sqrt, tanh

import pytest
import torch
from small_models import random_tokens
from torch import Tensor
from zoo_models import VARIANTS, zoo_config, zoo_model

from parallax.config.models.gpt2 import Gpt2Config
from parallax.model.noise import block_keys, gaussian, row_keys

Weights = dict[str, Tensor]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def layer_norm(h: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def gelu(h: Tensor) -> Tensor:
    return h / 2 * (1 + torch.tanh(sqrt(2 / pi) * (h + 0.044715 * h**3)))


def frequencies_of(w: Weights, name: str, head: int, c: Gpt2Config) -> Tensor:
    pairs = c.head_dim // 2
    if c.frequencies == "LR":
        found = w[f"{name}.rotation.frequencies"][head]
    else:
        scale = exp(c.frequency_spread * head / (c.num_heads - 1))
        powers = [scale * c.rope_theta ** (-2 * i / c.head_dim) for i in range(pairs)]
        found = torch.tensor(powers, dtype=torch.float64)
    if c.use_norm:
        norm = f"{name}.rotation.norm"
        found = layer_norm(found, w[f"{norm}.weight"], w[f"{norm}.bias"], c.norm_eps)
    return found


def turned(x: Tensor, position: int, frequencies: Tensor) -> Tensor:
    """One vector (B, E) at one position: each pair (i, i + E/2) as a complex number, times exp(i angle)."""
    half = x.shape[-1] // 2
    angle = position * frequencies
    return torch.cat(
        (
            x[..., :half] * angle.cos() - x[..., half:] * angle.sin(),
            x[..., half:] * angle.cos() + x[..., :half] * angle.sin(),
        ),
        dim=-1,
    )


def attend(
    w: Weights, name: str, normed: Tensor, sees: list[list[int]], aside: Tensor | None, c: Gpt2Config, noise
):
    """Query by query over the keys that it sees; keys from S on are those of `aside`."""
    weight, bias = w[f"{name}.qkv.weight"], w[f"{name}.qkv.bias"]
    asked = normed if aside is None else torch.cat((normed, aside), dim=1)
    width, outputs = c.head_dim, []
    for head in range(c.num_heads):
        parts = []
        for part in range(3):
            rows = slice((part * c.num_heads + head) * width, (part * c.num_heads + head + 1) * width)
            parts.append(asked @ weight[rows].T + bias[rows])
        query, key, value = parts
        if c.positions == "heads":
            own = frequencies_of(w, name, head, c)
            query, key = (
                torch.stack([turned(x[:, t], t, own) for t in range(x.shape[1])], dim=1) for x in (query, key)
            )
        rows = []
        for place, keys in enumerate(sees):
            scores = torch.stack([(query[:, place] * key[:, j]).sum(-1) / sqrt(width) for j in keys], dim=-1)
            shares = scores.exp() / scores.exp().sum(-1, keepdim=True)
            rows.append(sum(shares[:, i, None] * value[:, j] for i, j in enumerate(keys)))
        outputs.append(torch.stack(rows, dim=1))
    if c.architecture == "gpt2_drift_diffusion":
        outputs = [perturbed(w, name, head, output, c, noise) for head, output in enumerate(outputs)]
    return torch.cat(outputs, dim=-1) @ w[f"{name}.output.weight"].T + w[f"{name}.output.bias"]


def perturbed(w: Weights, name: str, head: int, output: Tensor, c: Gpt2Config, noise: Tensor) -> Tensor:
    if c.drift:
        output = output + w[f"{name}.perturbation.drift"][head if c.per_head else 0, 0, 0] * output
    std = c.diffusion_std[head] if isinstance(c.diffusion_std, list) else c.diffusion_std
    if std:
        output = output + std * noise[..., head * c.head_dim : (head + 1) * c.head_dim]
    return output


def block(w: Weights, name: str, h: Tensor, sees: list[list[int]], aside: Tensor | None, c: Gpt2Config, noise):
    def norm(x: Tensor, which: str) -> Tensor:
        return layer_norm(x, w[f"{name}.{which}.weight"], w[f"{name}.{which}.bias"], c.norm_eps)

    beside = None if aside is None else norm(aside, "attention_norm")
    h = h + attend(w, f"{name}.attention", norm(h, "attention_norm"), sees, beside, c, noise)
    inner = norm(h, "mlp_norm") @ w[f"{name}.mlp.up.weight"].T + w[f"{name}.mlp.up.bias"]
    return h + gelu(inner) @ w[f"{name}.mlp.down.weight"].T + w[f"{name}.mlp.down.bias"]


def read(w: Weights, x: Tensor, sees: list[list[int]], aside: Tensor | None, c: Gpt2Config, noise) -> Tensor:
    h = x
    if c.architecture == "gpt2_parallel":
        for pair in range(c.num_layers // 2):
            both = [block(w, f"tracks.{k}.blocks.{pair}", h, sees, aside, c, None) for k in range(2)]
            if c.merge == "mean":
                h = (both[0] + both[1]) / 2
            else:
                joined = torch.cat([w[f"tracks.{k}.merges.{pair}.weight"] for k in range(2)], dim=1)
                h = torch.cat(both, dim=-1) @ joined.T + w[f"biases.{pair}"]
    else:
        for layer in range(c.num_layers):
            h = block(w, f"tracks.0.blocks.{layer}", h, sees, aside, c, None if noise is None else noise[layer])
    return layer_norm(h, w["norm.weight"], w["norm.bias"], c.norm_eps)


def causal(length: int) -> list[list[int]]:
    return [list(range(t + 1)) for t in range(length)]


def next_logits(w: Weights, tokens: Tensor, c: Gpt2Config, noise=None) -> Tensor:
    x, stride = w["embedding.weight"][tokens], 2 if "duo" in c.architecture else 1
    if "positions.weight" in w:
        x = x + torch.stack([w["positions.weight"][stride * t] for t in range(tokens.shape[1])])
    return read(w, x, causal(tokens.shape[1]), None, c, noise) @ w["embedding.weight"].T


def duo_logits(w: Weights, tokens: Tensor, c: Gpt2Config) -> tuple[Tensor, Tensor]:
    """As the design note states it, slots counted from 1: an odd slot holds a token, an even one asks."""
    batch, length = tokens.shape
    slots, sees = [], []
    for slot in range(1, 2 * length):
        token = (slot - 1) // 2
        what = w["embedding.weight"][tokens[:, token]] if slot % 2 else w["query.weight"].expand(batch, -1)
        slots.append(what + w["positions.weight"][slot - 1])
        if slot % 2:
            sees.append([j - 1 for j in range(1, slot + 1, 2)])
        else:
            following = 2 * length - 1 + slot // 2 if c.is_strict else slot
            sees.append([j - 1 for j in range(1, slot - 1, 2)] + [slot - 1, following])
    x = torch.stack(slots, dim=1)
    states = read(w, x, sees, x[:, ::2] if c.is_strict else None, c, None)
    logits = states @ w["embedding.weight"].T
    return logits[:, ::2], logits[:, 1::2]


def summed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).sum()


def drawn_noise(c: Gpt2Config, rows: Tensor, length: int) -> list[Tensor]:
    keys = block_keys(rows, 0, 1, c.num_layers)[0]
    return [
        gaussian(keys[layer, 0], torch.arange(length)[None], c.hidden_size).double()
        for layer in range(c.num_layers)
    ]


@pytest.mark.parametrize("backend", ["eager", "auto"])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_loss_and_every_gradient_follow_the_equations(name: str, backend: str) -> None:
    config = zoo_config(name)
    model = zoo_model(config, backend=backend).train()
    tokens, targets = random_tokens(config, length=5), random_tokens(config, length=5, seed=2)
    w = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    rows = row_keys(3, range(len(tokens)))
    noise = drawn_noise(config, rows, 5) if config.draws_noise else None

    loss = summed_nll(next_logits(w, tokens, config, noise), targets)
    if "duo" in config.architecture:
        following, gaps = duo_logits(w, tokens, config)
        loss = (summed_nll(following, targets) + summed_nll(gaps, tokens[:, :-1])) / 2
        torch.testing.assert_close(model.gap_logits(tokens), gaps, **EXACT)
        torch.testing.assert_close(following, next_logits(w, tokens, config), **EXACT)
    loss.backward()
    output = model(tokens, targets, noise=rows)
    output.objective_sum.backward()

    torch.testing.assert_close(output.objective_sum, loss, **EXACT)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, w[name].grad, **EXACT, msg=lambda m, n=name: f"{n}: {m}")
    quiet = next_logits(
        w, tokens, zoo_config(name_of(config), diffusion_std=0.0) if config.draws_noise else config
    )
    torch.testing.assert_close(model.eval()(tokens), quiet, **EXACT)
    torch.testing.assert_close(model(tokens, targets).objective_sum, summed_nll(quiet, targets), **EXACT)


def name_of(config: Gpt2Config) -> str:
    return next(name for name in VARIANTS if zoo_config(name) == config)


def test_the_restated_gelu_is_the_published_one() -> None:
    x = 0.7
    assert gelu(torch.tensor(x)).item() == pytest.approx(0.5 * x * (1 + tanh(0.79788456 * (x + 0.044715 * x**3))))
