import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallax.errors import DataError
from parallax.model.documents import document_ids
from parallax.model.head import HeadOutput
from parallax.model.mode import evaluation_mode


@dataclass(frozen=True)
class Quality:
    """How well a model predicts the tokens of a split."""

    loss: float
    """Mean negative log-likelihood, in nats a token."""
    perplexity: float
    """exp(loss); infinite where that leaves the range of a float."""
    bits_per_byte: float | None
    """loss / (ln 2 x bytes a token): comparable between tokenizers; None: bytes a token not known."""
    accuracy: float
    """Share of the tokens whose largest logit is the right one."""
    tokens: int
    """Tokens that were predicted."""


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    bytes_per_token: float | None,
    autocast_dtype: torch.dtype | None = None,
    separating_eos_id: int | None = None,
    progress: Callable[[int], None] | None = None,
    sum_over_ranks: Callable[[Tensor], Tensor] | None = None,
) -> Quality:
    """Measures a model over batches of (tokens, targets), both (B, T); the model's mode is restored.

    Sums are kept on the device in fp64 and fetched once, so the result does not depend on how the tokens
    are cut into batches, beyond rounding inside the model.

    Args:
        model: called as model(tokens, targets) -> HeadOutput.
        batches: moved to the model's device.
        bytes_per_token: mean UTF-8 bytes of the split's tokens.
        autocast_dtype: type of the matrix products; None: that of the weights.
        separating_eos_id: the token that parts documents, which then do not see each other; None: they do.
        progress: called after each batch with the number of batches so far.
        sum_over_ranks: adds up a tensor over the ranks that measure the split together; None: this one alone.

    Raises:
        DataError: the batches hold no token to predict.
    """
    device = next(model.parameters()).device
    nll = torch.zeros((), dtype=torch.float64, device=device)
    counts = torch.zeros(2, dtype=torch.long, device=device)
    # Not inference_mode: what a model computes and keeps under it could not enter a later backward.
    with evaluation_mode(model), torch.no_grad():
        for done, (tokens, targets) in enumerate(batches, start=1):
            tokens = tokens.to(device)
            apart = {} if separating_eos_id is None else {"documents": document_ids(tokens, separating_eos_id)}
            with torch.autocast(device.type, autocast_dtype, enabled=autocast_dtype is not None):
                output: HeadOutput = model(tokens, targets.to(device), **apart)
            nll += output.nll_sum.double()
            counts += torch.stack((output.token_count, output.correct_count))
            if progress is not None:
                progress(done)
    if sum_over_ranks is not None:
        nll, counts = sum_over_ranks(nll), sum_over_ranks(counts)
    num_tokens, num_correct = counts.tolist()
    return quality_from_sums(nll.item(), num_tokens, num_correct, bytes_per_token)


def quality_from_sums(nll_sum: float, num_tokens: int, num_correct: int, bytes_per_token: float | None) -> Quality:
    """The figures from sums over a split, of one process or added up over several.

    Raises:
        DataError: there is no token.
    """
    if num_tokens == 0:
        raise DataError("the split has no token to predict; it needs at least one window of text")
    loss = nll_sum / num_tokens
    return Quality(
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_byte=loss / math.log(2) / bytes_per_token if bytes_per_token else None,
        accuracy=num_correct / num_tokens,
        tokens=num_tokens,
    )


def perplexity(loss: float) -> float:
    """exp(loss), infinite instead of an error where a float cannot hold it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
