"""Where two straight pieces meet, and the map of who is faster: pure functions of measured steps and bytes."""

from collections.abc import Sequence

import numpy as np


def crossing(at: Sequence[float], first: Sequence[float], second: Sequence[float]) -> float | None:
    """Where the first curve comes to lie above the second, both linear between the points `at`; None: nowhere.

    Noise may make them cross more than once; the straight lines through all points then decide.
    """
    difference = np.asarray(first) - np.asarray(second)
    signs = np.sign(difference)
    changes = np.flatnonzero(signs[:-1] * signs[1:] < 0)
    if len(changes) == 1 and signs[changes[0]] < 0:
        left = changes[0]
        share = difference[left] / (difference[left] - difference[left + 1])
        return float(at[left] + share * (at[left + 1] - at[left]))
    slope, offset = np.polyfit(np.asarray(at, dtype=float), difference, 1)
    found = -offset / slope if slope > 0 else float("nan")
    return float(found) if at[0] <= found <= at[-1] else None


def _line(at: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the best line that takes no time away, whatever noise says of more tokens or of none."""
    slope, offset = np.polyfit(at, values, 1)
    if slope < 0:
        return 0.0, float(values.mean())
    if offset < 0:
        return float(at @ values / (at @ at)), 0.0
    return float(slope), float(offset)


class StepModel:
    """Seconds of a step over a link: a straight line of compute in the tokens, and bytes over the bandwidth.

    Args:
        tokens: of the steps that were measured without a link, two numbers of them at least.
        seconds: that they took.
        fixed_bytes: that a rank sends whatever the tokens.
        bytes_per_token: that it sends besides.
    """

    def __init__(
        self, tokens: Sequence[float], seconds: Sequence[float], fixed_bytes: float, bytes_per_token: float
    ) -> None:
        self._slope, self._offset = _line(np.asarray(tokens, dtype=float), np.asarray(seconds, dtype=float))
        self._fixed, self._per_token = fixed_bytes, bytes_per_token

    def seconds(self, tokens: float, megabits: float) -> float:
        """Of a step over so many tokens."""
        sent = self._fixed + self._per_token * tokens
        return self._offset + self._slope * tokens + 8 * sent / (megabits * 1e6)

    def crossing(self, other: "StepModel", megabits: float) -> float | None:
        """Tokens above which the other one is faster; None: at no number of them, or at every."""
        per_bit = 8 / (megabits * 1e6)
        slope = self._slope - other._slope + per_bit * (self._per_token - other._per_token)
        offset = self._offset - other._offset + per_bit * (self._fixed - other._fixed)
        return -offset / slope if slope > 0 and offset < 0 else None
