"""Dropout masks and Gaussian noise: pure functions of what they are for, and of nothing that was drawn before.

Element (t, d) of a sample's mask depends on (seed, sample, site, t, d) only, where a site is one place in the
model: the embedding, or (track, pass, layer, branch). A sample's index grows over the whole run and does not
begin anew with an epoch, so it implies the step. Neither batch mates, nor the cut into micro-batches, nor the
ranks that compute it, nor the length of the row change a mask, and recomputation repeats it.

Keys narrow down in three stages, each a hash of the one before:

    row key (64 bits)   = SHA-256(seed, sample)            `row_keys`, on the host
    site key (2 x 32)   = SplitMix64(row key, site)        `embedding_key`, `block_keys`, once per forward
    mask, or noise      = a hash of (site key, t, d)       `drop`, `gaussian`, where it is used

All arithmetic is modulo 2^32 or 2^64, in signed integers because torch computes in no others everywhere.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from parallax.runtime.seeds import derive_seed

SITES_PER_BLOCK = 2
"""The attention branch and the MLP branch."""

_FIRST, _SECOND = 0x21F0AAAD, 0x735A2D97
_RADIUS, _ANGLE = 0x3C6EF372, 0x54FF53A5
"""What sets the words of a Gaussian draw apart from each other and from dropout's; any two constants do."""


def row_keys(seed: int, samples: Iterable[int]) -> Tensor:
    """(B,) int64 keys, on the CPU, of the samples with these indices in the run with this seed."""
    return torch.tensor([derive_seed(seed, "noise", sample) for sample in samples], dtype=torch.long)


def embedding_key(rows: Tensor) -> Tensor:
    """(B, 2) int32 key of the embedding's dropout, given (B,) row keys."""
    return _site_keys(rows, torch.zeros(1, dtype=torch.long, device=rows.device))[0]


def block_keys(rows: Tensor, track: int, num_passes: int, num_layers: int) -> Tensor:
    """(R, L, 2, B, 2) int32 keys of one track's dropouts by pass, layer and branch, given (B,) row keys.

    Args:
        rows: row keys.
        track: the number of the track among all K, not among those of this rank.
        num_passes: R.
        num_layers: L.
    """
    count = num_passes * num_layers * SITES_PER_BLOCK
    first = 1 + track * count  # the embedding is site 0
    sites = torch.arange(first, first + count, device=rows.device)
    return _site_keys(rows, sites.view(num_passes, num_layers, SITES_PER_BLOCK))


def drop(x: Tensor, share: float, key: Tensor) -> Tensor:
    """X with a share of its elements zeroed and the others divided by 1 - share.

    Args:
        x: (B, T, D).
        share: the probability of zeroing an element, kept to 2^-33.
        key: (B, 2) int32, of the site.
    """
    return x * _keep_mask(key, x.shape[1], x.shape[2], share) * (1 / (1 - share))


def gaussian(key: Tensor, positions: Tensor, width: int) -> Tensor:
    """(B, T, D) fp32 draws of N(0, 1), element (t, d) a function of the key, the position of t, and d.

    Source: Box and Muller, 1958; two words of 24 bits give two draws, so none is beyond 5.77.

    Args:
        key: (B, 2) int32, of the site; dropout at the same site draws independently.
        positions: (B or 1, T) of the tokens in their rows.
        width: D.
    """
    pairs = -(-width // 2)
    uniform, angle = (_share(_words(key ^ mark, positions, pairs)) for mark in (_RADIUS, _ANGLE))
    radius = (-2 * uniform.log()).sqrt()
    angle = 2 * math.pi * angle
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=-1)[..., :width]


def _share(word: Tensor) -> Tensor:
    """Int32 words as fp32 in (0, 1], evenly in steps of 2^-24."""
    return (((word >> 8) & 0xFFFFFF) + 1).float() * 2.0**-24


def _keep_mask(key: Tensor, num_tokens: int, width: int, share: float) -> Tensor:
    """(B, T, D) boolean, true with probability 1 - share."""
    tokens = torch.arange(num_tokens, dtype=torch.int32, device=key.device)
    return _words(key, tokens, width) >= round(share * 2**32) - 2**31


def _words(key: Tensor, tokens: Tensor, width: int) -> Tensor:
    """(B, T, D) int32 h = (y xor y >>> 15) c2, y = (a_t xor b_d) c1, as good as independent of each other.

    The words a_t and b_d are thoroughly mixed from one half of the key each, and so differ between any two
    places in all their bits. One round more is then enough to make their combinations independent, and it is all
    that runs over (B, T, D).
    """
    columns = torch.arange(width, dtype=torch.int32, device=key.device)
    of_token, of_column = _mix32(key[:, :1] ^ tokens.to(torch.int32)), _mix32(key[:, 1:] ^ columns)
    word = (of_token[:, :, None] ^ of_column[:, None, :]).mul_(_FIRST)
    return _shift_in(word, 15).mul_(_SECOND)


def _mix32(word: Tensor) -> Tensor:
    """A bijection on int32 whose output bits each depend on all input bits, on a tensor of the caller's own.

    Source: Wellons, "Prospecting for hash functions", 2018, and the list at github.com/skeeto/hash-prospector.
    """
    word = _shift_in(word, 16).mul_(_FIRST)
    word = _shift_in(word, 15).mul_(_SECOND)
    return _shift_in(word, 15)


def _shift_in(word: Tensor, bits: int) -> Tensor:
    """X xor (x >>> bits) of int32 words, in place; the shift is torch's, without the copies of the sign."""
    return word.bitwise_xor_((word >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _site_keys(rows: Tensor, sites: Tensor) -> Tensor:
    """(..., B, 2) int32 keys of (...) site numbers, given (B,) row keys: SplitMix64's outputs, halved.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    z = rows + (sites[..., None] + 1) * _signed(0x9E3779B97F4A7C15)
    z = (z ^ ((z >> 30) & (2**34 - 1))) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ ((z >> 27) & (2**37 - 1))) * _signed(0x94D049BB133111EB)
    z = z ^ ((z >> 31) & (2**33 - 1))
    return z[..., None].view(torch.int32)


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned word of 64 bits."""
    return word - 2**64 if word >= 2**63 else word
