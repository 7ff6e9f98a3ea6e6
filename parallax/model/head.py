from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parallax.config.models.base import aligned_width
from parallax.model.linear import linear
from parallax.model.precision import product_dtype
from parallax.model.vocabulary import LogitStatistics, VocabularyAxis, reduce_logits

IGNORE_INDEX = -100
_CACHED_LOGITS = 1 << 20
"""Logits, 4 MiB in fp32, that a CPU keeps in its caches from one sweep over them to the next."""


@dataclass(frozen=True)
class Objective:
    """What training minimises, per token of vocabulary size V with e = label_smoothing, z = z_loss:

    lse - (1 - e) l_target - (e / V) sum_j l_j + z lse^2, where lse = log sum_j exp(l_j).
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    chunk_tokens: int = 1024
    """Tokens whose logits exist at one time."""
    cached_logits: int | None = None
    """Logits to sweep over at a time; None: on a CPU as many as its caches hold, elsewhere all of a chunk."""


class HeadOutput(NamedTuple):
    """Sums over the valid tokens (targets other than IGNORE_INDEX); the caller divides by their number."""

    objective_sum: Tensor
    """0-dim, differentiable: the sum of the objective, in nats."""
    nll_sum: Tensor
    """0-dim: the sum of lse - l_target, from which loss, perplexity and bits per byte come."""
    z_sum: Tensor
    """0-dim: the sum of lse^2, without its weight."""
    token_count: Tensor
    """0-dim integer: the valid tokens."""
    correct_count: Tensor
    """0-dim integer: the tokens whose largest logit is the target's."""
    token_nll: Tensor | None
    """(B, T) lse - l_target, 0 where ignored; only when asked for."""


class LanguageHead(nn.Module):
    """Projection to the vocabulary and, fused with it, the loss: the (B*T, V) logits never exist at once.

    Training, validation and evaluation share it.
    """

    def __init__(self, hidden_size: int, vocabulary: VocabularyAxis) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.weight = nn.Parameter(torch.empty(len(vocabulary.rows), hidden_size))

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V), in fp32 or wider."""
        return self.vocabulary.gather(_widened(linear(hidden, self.weight)))

    def forward(
        self, hidden: Tensor, targets: Tensor, objective: Objective, per_token: bool = False
    ) -> HeadOutput:
        """The loss of (B, T, D) states against (B, T) targets."""
        hidden = self.vocabulary.enter(hidden)
        task = _Task(objective, self.vocabulary, product_dtype(hidden), torch.is_grad_enabled())
        # The function chooses its types itself: autocast would round the fp32 logit gradients to fp16 again.
        with torch.autocast(hidden.device.type, enabled=False):
            sums = _FusedLinearLoss.apply(  # type: ignore[no-untyped-call]
                hidden.flatten(0, 1), self.weight, targets.flatten(), task
            )
        objective_sum, nll_sum, z_sum, token_count, correct_count, token_nll = sums
        return HeadOutput(
            objective_sum,
            nll_sum,
            z_sum,
            token_count,
            correct_count,
            token_nll.view_as(targets) if per_token else None,
        )


@dataclass(frozen=True)
class _Task:
    objective: Objective
    vocabulary: VocabularyAxis
    product_dtype: torch.dtype
    wants_gradients: bool


class _FusedLinearLoss(torch.autograd.Function):
    """Loss and, in the same sweep over chunks of tokens, its gradients to hidden (N, D) and weight (V, D).

    Gradients are those of the plain sum: nothing is divided by the token count here, and logit gradients
    are held in fp32 (fp64), so that (1/V)/N, which fp16 cannot hold, never occurs. Only bf16, whose exponent
    range is fp32's, rounds them for the matrix products.

    The products written out, with p_j = exp(l_j - lse):
        dl_j = (1 + 2 z lse) p_j - (1 - e) [j = target] - e / V
        d hidden = dl W,   d W = sum over tokens of dl^T hidden
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, task: _Task) -> tuple[Tensor, ...]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        narrow_weight = weight.to(task.product_dtype)
        wants_hidden = task.wants_gradients and ctx.needs_input_grad[0]
        wants_weight = task.wants_gradients and ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = None
        gradient_dtype = wide if task.product_dtype == torch.float16 else task.product_dtype
        chunk = min(task.objective.chunk_tokens, len(hidden))
        # One piece of memory for all chunks: getting one so large from the system costs as much as a sweep. Rows
        # that begin at aligned places let a product with an odd vocabulary run at full rate.
        space = torch.empty(chunk, aligned_width(len(weight)), dtype=task.product_dtype, device=hidden.device)
        space = space[:, : len(weight)]
        gradient_weight = narrow_weight if gradient_dtype == narrow_weight.dtype else weight.to(gradient_dtype)
        sums = torch.zeros(3, dtype=wide, device=hidden.device)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        token_nll = torch.empty(targets.shape, dtype=wide, device=hidden.device)
        valid = targets != IGNORE_INDEX

        for start in range(0, targets.numel(), task.objective.chunk_tokens):
            rows = slice(start, start + task.objective.chunk_tokens)
            states = hidden[rows].to(task.product_dtype)
            logits = torch.mm(states, narrow_weight.T, out=space[: len(states)])
            losses, lse = _chunk_losses(logits, targets[rows], valid[rows], task)
            sums += torch.stack((losses.objective.sum(), losses.nll.sum(), losses.z.sum()))
            correct += losses.correct.sum()
            token_nll[rows] = losses.nll
            if not wants_hidden and not wants_weight:
                continue
            gradients = _logit_gradients(logits, lse, targets[rows], valid[rows], task, gradient_dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = gradients @ gradient_weight
            if wants_weight:
                grad_weight = _add_product(grad_weight, gradients.T, hidden[rows].to(gradient_dtype), wide)

        ctx.save_for_backward(grad_hidden, grad_weight)
        outputs = (sums[0].clone(), sums[1].clone(), sums[2].clone(), valid.sum(), correct, token_nll)
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0]
        return (
            None if grad_hidden is None else (grad_hidden * scale).to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * scale,
            None,
            None,
        )


class _ChunkLosses(NamedTuple):
    objective: Tensor
    nll: Tensor
    z: Tensor
    correct: Tensor


def _chunk_losses(logits: Tensor, targets: Tensor, valid: Tensor, task: _Task) -> tuple[_ChunkLosses, Tensor]:
    """Per-token losses of (n, rows) logits, zero where not valid, and their lse (n,)."""
    smoothing, z_weight = task.objective.label_smoothing, task.objective.z_loss
    parts = [
        reduce_logits(
            _widened(logits[block]), targets[block], task.vocabulary.rows.start, with_total=smoothing > 0
        )
        for block in _blocks(logits, task.objective)
    ]
    found = task.vocabulary.merge(LogitStatistics(*(torch.cat(field) for field in zip(*parts, strict=True))))
    lse = found.max + found.sum_exp.log()
    z = lse.square()
    value = (
        lse - (1 - smoothing) * found.target - smoothing / task.vocabulary.vocab_size * found.total + z_weight * z
    )
    zero = torch.zeros((), dtype=value.dtype, device=logits.device)
    losses = _ChunkLosses(
        objective=torch.where(valid, value, zero),
        nll=torch.where(valid, lse - found.target, zero),
        z=torch.where(valid, z, zero),
        correct=(found.argmax == targets) & valid,
    )
    return losses, lse


def _logit_gradients(
    logits: Tensor, lse: Tensor, targets: Tensor, valid: Tensor, task: _Task, dtype: torch.dtype
) -> Tensor:
    """Dl (n, rows), in the logits' place where they have the type asked for."""
    smoothing, z_weight = task.objective.label_smoothing, task.objective.z_loss
    counted = valid.to(lse.dtype)
    factors = (1 + 2 * z_weight * lse) * counted
    local = targets - task.vocabulary.rows.start
    held = valid & (local >= 0) & (local < logits.shape[-1])
    places = local.clamp(0, logits.shape[-1] - 1)[:, None]
    peaks = held[:, None].to(lse.dtype) * (smoothing - 1.0)
    result = logits if logits.dtype == dtype else torch.empty_like(logits, dtype=dtype)
    for block in _blocks(logits, task.objective):
        gradients = (_widened(logits[block]) - lse[block, None]).exp_().mul_(factors[block, None])
        gradients.scatter_add_(-1, places[block], peaks[block])
        if smoothing:
            gradients.sub_((smoothing / task.vocabulary.vocab_size * counted[block])[:, None])
        result[block] = gradients
    return result


def _blocks(logits: Tensor, objective: Objective) -> list[slice]:
    """Rows to sweep over at a time: on a CPU as many as stay in its caches over several sweeps, else all."""
    cached = objective.cached_logits or (_CACHED_LOGITS if logits.device.type == "cpu" else logits.numel())
    rows = max(1, cached // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def _widened(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _add_product(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """The total plus left @ right, in one sweep where the types agree."""
    if total is None:
        return (left @ right).to(dtype)
    if total.dtype == left.dtype:
        return torch.addmm(total, left, right, out=total)
    return total.add_(left @ right)
