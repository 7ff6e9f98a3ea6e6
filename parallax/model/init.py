import re
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from parallax.runtime.seeds import derived_generator

_STD = 0.02
_ZERO = re.compile(r"\.bias$|^biases\.|\.attention\.directions\.weight$")
_RESIDUAL_PROJECTIONS = ("attention.output.weight", "mlp.down.weight")


Put = Callable[[str, nn.Parameter, Tensor], None]
"""Writes a whole value into the named parameter, of which this rank may hold a part only."""


def put_whole(name: str, parameter: nn.Parameter, value: Tensor) -> None:
    """All of the parameter is here."""
    parameter.copy_(value)


@torch.no_grad()
def initialize_parameters(
    model: nn.Module,
    *,
    seed: int,
    executed_depth: int,
    vocabulary: Collection[str] = (),
    vocab_size: int = 0,
    put: Put = put_whole,
) -> None:
    """Draws every parameter from a generator of its own, seeded by (seed, the parameter's name).

    Any layout of the model over ranks therefore draws the same weights, and adding a parameter changes no
    other. Draws are fp32 on the CPU, whatever the parameter's type and device.

    | parameter                                  | value                            |
    |--------------------------------------------|----------------------------------|
    | norms' weights                             | 1                                |
    | biases, PLLA's directions, which then      | 0                                |
    |   begins as softmax attention              |                                  |
    | rotation.frequencies                       | N(0, 1)                          |
    | attention.output, mlp.down (write into the | N(0, 0.02 / sqrt(2 * depth))     |
    |   residual stream)                         |                                  |
    | everything else: embeddings, qkv, gate_up, | N(0, 0.02)                       |
    |   up, merges, drifts, query, head          |                                  |

    Args:
        model: materialised model; tied parameters are drawn once.
        seed: the run's seed.
        executed_depth: depth = passes times layers of a track, the blocks one track runs in a forward. Each adds
            two branches to the residual stream, whose variance the factor keeps from growing with depth.
        vocabulary: names of parameters with a row for each of `vocab_size` tokens, of which the model may hold
            some rows only. They are drawn whole, one at a time.
        vocab_size: V; needed with `vocabulary`.
        put: writes a drawn value into its parameter.
    """
    for name, parameter in model.named_parameters():
        shape = torch.Size((vocab_size, *parameter.shape[1:])) if name in vocabulary else parameter.shape
        put(name, parameter, _draw(name, shape, seed, executed_depth))


def _draw(name: str, shape: torch.Size, seed: int, executed_depth: int) -> Tensor:
    if _ZERO.search(name):
        return torch.zeros(shape)
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    std = 1.0 if name.endswith("rotation.frequencies") else _STD
    if name.endswith(_RESIDUAL_PROJECTIONS):
        std /= (2 * executed_depth) ** 0.5
    return torch.empty(shape).normal_(0.0, std, generator=derived_generator(seed, name))
