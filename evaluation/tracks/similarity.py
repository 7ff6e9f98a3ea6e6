import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.jackknife import Array

PIECE_TOKENS = 256
"""Tokens compared with each other at a time; more would cost their square in memory."""
_FEWEST_TOKENS = 4


def hsic(states: Tensor) -> Tensor:
    """(S, n, D) states of the same n tokens -> (S, S) unbiased HSIC of every pair, with linear kernels.

    With K = X X^T, L = Y Y^T and their diagonals set to 0 (K', L'):
        HSIC = (tr K' L' + 1'K'1 1'L'1 / ((n - 1)(n - 2)) - 2/(n - 2) 1'K' L'1) / (n (n - 3)).
    Its mean over samples is the same for every n, so windows can be averaged.

    Raises:
        ValueError: fewer than 4 tokens.

    Source: Song et al., "Feature selection via dependence maximization", JMLR 2012, eq. 4.
    """
    n = states.shape[1]
    if n < _FEWEST_TOKENS:
        raise ValueError(f"{n} tokens; the unbiased estimator needs at least {_FEWEST_TOKENS}")
    x = states.double()
    x = x - x.mean(1, keepdim=True)  # changes nothing but the rounding
    grams = x @ x.mT
    grams.diagonal(dim1=1, dim2=2).zero_()
    flat, rows = grams.flatten(1), grams.sum(-1)
    totals = rows.sum(-1)
    traces = flat @ flat.T
    corners = torch.outer(totals, totals) / ((n - 1) * (n - 2))
    return (traces + corners - 2 / (n - 2) * rows @ rows.T) / (n * (n - 3))


def hsic_sums(states: Tensor) -> Tensor:
    """(S, T, D) states of a window -> (S, S): HSIC of its pieces, weighted by their tokens."""
    pieces = [piece for piece in torch.split(states, PIECE_TOKENS, dim=1) if piece.shape[1] >= _FEWEST_TOKENS]
    total = torch.zeros(len(states), len(states), dtype=torch.float64, device=states.device)
    for piece in pieces:
        total += piece.shape[1] * hsic(piece)
    return total


def cosine_sums(states: Tensor) -> Tensor:
    """(S, T, D) states of a window -> (S, S): cosines of each pair's states at a token, summed over the tokens."""
    unit = F.normalize(states.double(), dim=-1)
    flat = unit.flatten(1)
    return flat @ flat.T


def cka(sums: Array) -> Array:
    """(..., S, S) HSIC -> linear CKA = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)): 1 for equal geometry, about 0
    for unrelated states, and slightly below it by chance, since the estimator is unbiased.

    NaN where a state does not vary over tokens.

    Source: Kornblith et al., "Similarity of neural network representations revisited", 2019; averaged over
    pieces of text as in Nguyen et al., "Do wide and deep networks learn the same things?", 2021.
    """
    own = np.maximum(np.diagonal(sums, axis1=-2, axis2=-1), 0)
    scale = np.sqrt(own[..., :, None] * own[..., None, :])
    similarity: Array = np.divide(sums, scale, out=np.full_like(sums, np.nan), where=scale > 0)
    return similarity
