from typing import NamedTuple

import numpy as np

from parallax.data.tokenizer import IdArray


class UnigramBaseline(NamedTuple):
    """How well single-token frequencies predict."""

    nats_per_token: float
    accuracy: float


def unigram_baseline(train_counts: IdArray, eval_counts: IdArray) -> UnigramBaseline:
    """Cross-entropy and accuracy of a model that knows how often each token occurs in the training split.

        p(v) = (c_train(v) + 1) / (sum c_train + V),    nats = -sum_v c_eval(v) log p(v) / sum c_eval

    Accuracy is the share of the token that is most frequent in training.

    Args:
        train_counts: (V,) occurrences the model is fitted to.
        eval_counts: (V,) occurrences it is measured on.

    Raises:
        ValueError: the shapes differ, or there is nothing to measure on.
    """
    if train_counts.shape != eval_counts.shape:
        raise ValueError(f"counts of {train_counts.shape} and {eval_counts.shape} are of different vocabularies")
    total = int(eval_counts.sum())
    if total == 0:
        raise ValueError("eval_counts is zero everywhere: nothing to measure on")
    smoothed = train_counts.astype(np.float64) + 1
    log_p = np.log(smoothed) - np.log(smoothed.sum())
    nats = float(-(eval_counts * log_p).sum() / total)
    return UnigramBaseline(nats, float(eval_counts[train_counts.argmax()] / total))
