import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parallax.errors import ConfigError

NOT_FINITE = -1
"""What `sample` returns for a row whose logits say nothing: NaN, +inf, or -inf everywhere."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is drawn from the logits; the defaults draw from the model's own distribution.

    Raises:
        ConfigError: an option is outside its range; the message names it, its value and the range.
    """

    temperature: float = 1.0
    """Logits are divided by it; 0: always the likeliest token (greedy)."""
    top_k: int = 0
    """Only the k likeliest tokens, and those as likely as the k-th; 0: all."""
    top_p: float = 1.0
    """Only the likeliest tokens, down to the one with which their probabilities reach this sum; of equally likely
    ones the lowest ids; 1: all."""
    min_p: float = 0.0
    """Only tokens at least this many times as likely as the likeliest; 0: all."""
    repetition_penalty: float = 1.0
    """Logits of tokens the row already holds are divided by it if positive, else multiplied; 1: none."""

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 (greedy) or more")
        _require("top_k", self.top_k, self.top_k >= 0, "a count of tokens, or 0 for all")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "more than 0 and at most 1 (all tokens)")
        _require("min_p", self.min_p, 0 <= self.min_p <= 1, "0 (all tokens) to 1 (only the likeliest)")
        penalty = self.repetition_penalty
        _require("repetition_penalty", penalty, 0 < penalty < math.inf, "more than 0; 1 is no penalty")


def _require(name: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name}={value}: expected {expected}")


def sample(
    logits: Tensor, options: SamplingOptions, generators: Sequence[torch.Generator], seen: Tensor | None = None
) -> Tensor:
    """Draws one token per row from `token_probabilities`; greedy takes the likeliest, of equals the lowest id.

    A row consumes one number of its own generator and nothing else, so what it draws depends neither on the
    other rows nor on their count. With generators on the CPU it does not depend on the logits' device either.
    Nothing here waits for the device.

    Args:
        logits: (B, V) floating point.
        options: the transforms.
        generators: one per row, on any device; greedy sampling leaves them untouched.
        seen: (B, V) boolean, true for the tokens a row already holds; None: no repetition penalty.

    Returns:
        (B,) token ids, or NOT_FINITE where a row's logits are not finite: an error found on the device
        reaches the caller with the tokens, without a transfer of its own.
    """
    scores = _penalized(logits, options, seen)
    if options.temperature == 0:
        tokens = scores.argmax(-1)
    else:
        tokens = _draw(_filtered(scores, options).softmax(-1), generators)
    return torch.where(scores.amax(-1).isfinite(), tokens, NOT_FINITE)


def token_probabilities(logits: Tensor, options: SamplingOptions, seen: Tensor | None = None) -> Tensor:
    """The distribution that `sample` draws from, at a temperature above 0.

    The transforms are those of Hugging Face transformers in the same order: repetition penalty, temperature,
    top-k, top-p, min-p; each filter sees what the ones before it left, renormalised. The likeliest token
    survives them all.

    Args:
        logits: (B, V) floating point, finite.
        options: the transforms; a temperature of 0 has no distribution and must not be asked for.
        seen: (B, V) boolean, true for the tokens a row already holds; None: no repetition penalty.

    Returns:
        (B, V) fp64, rows summing to 1, zero for filtered tokens.
    """
    return _filtered(_penalized(logits, options, seen), options).softmax(-1)


def _penalized(logits: Tensor, options: SamplingOptions, seen: Tensor | None) -> Tensor:
    # fp64 from here on: cumulative sums over a large vocabulary lose the tail in fp32, and next to a step
    # of the model the cost does not show.
    scores = logits.double()
    penalty = options.repetition_penalty
    if seen is None or penalty == 1:
        return scores
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def _filtered(scores: Tensor, options: SamplingOptions) -> Tensor:
    """Scores with the likeliest at 0, after temperature and filters; -inf where filtered."""
    # The peak goes first: however small the temperature, the quotients then cannot overflow upwards.
    scores = (scores - scores.amax(-1, keepdim=True)) / options.temperature
    if 0 < options.top_k < scores.shape[-1]:
        scores = _keep(scores, scores >= scores.topk(options.top_k).values[:, -1:])
    if options.top_p < 1:
        scores = _keep(scores, _nucleus(scores, options.top_p))
    if options.min_p > 0:
        scores = _keep(scores, scores >= math.log(options.min_p))
    return scores


def _keep(scores: Tensor, kept: Tensor) -> Tensor:
    return scores.masked_fill(~kept, float("-inf"))


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """(B, V) boolean: a token stays while the likelier ones have not reached `top_p` without it."""
    ordered, ids = scores.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    likelier = probabilities.cumsum(-1) - probabilities
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, ids, likelier < top_p)


def _draw(probabilities: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Inverts the cumulative distribution at one uniform number per row."""
    numbers = [torch.rand(1, generator=g, dtype=torch.float64, device=g.device) for g in generators]
    uniform = torch.stack(numbers).to(probabilities.device, non_blocking=True)
    # A parallel cumulative sum is not exactly monotone. Filtered tokens therefore reach nowhere, and the
    # number stays below the highest reach, so that rounding never picks a token of probability 0.
    reach = probabilities.cumsum(-1).masked_fill(probabilities == 0, 0)
    highest = reach.amax(-1, keepdim=True)
    wanted = torch.minimum(uniform * highest, torch.nextafter(highest, torch.zeros_like(highest)))
    return (reach > wanted).int().argmax(-1)
