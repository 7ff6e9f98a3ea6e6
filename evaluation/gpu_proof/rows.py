import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from parallax.config.layout import Layout
from parallax.config.run import RunConfig
from parallax.train.planning.measured import shape_of

Verdict = Literal["pass", "fail", "not possible here", "measured"]


@dataclass(frozen=True)
class Row:
    """One line of the table: something looked at, what was found, and what that says."""

    what: str
    found: str = ""
    expected: str = ""
    """The bound, or the value, that decides between pass and fail."""
    verdict: Verdict = "measured"
    """`measured`: a figure without a bound."""
    reason: str = ""
    """Why it failed or could not be looked at; otherwise a remark."""
    measured: dict[str, Any] | None = None
    """A measured peak and the shape of its run, for `parallax plan --measured`; see `measured_peak`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values)


def measured_peak(config: RunConfig, peak_bytes: int) -> dict[str, Any]:
    """For `Row.measured`: the most that one process held in tensors during steps of a run."""
    return {"shape": shape_of(config, Layout(1, 1, 1)), "peak_bytes": peak_bytes}


def bounded(what: str, error: float, limit: float, reason: str = "") -> Row:
    """Passes if an error, which may be NaN, is no larger than its limit."""
    return Row(what, f"{error:.1e}", f"<= {limit:.0e}", "pass" if error <= limit else "fail", reason)


def within(what: str, value: float, low: float, high: float, reason: str = "") -> Row:
    """Passes if a number lies between two others."""
    fits = math.isfinite(value) and low <= value <= high
    return Row(what, f"{value:.3g}", f"{low:g} to {high:g}", "pass" if fits else "fail", reason)


def equal(what: str, found: object, expected: object, reason: str = "") -> Row:
    """Passes if two values are the same; they are shown, so they should be short."""
    return Row(what, str(found), str(expected), "pass" if found == expected else "fail", reason)


def impossible(what: str, reason: str) -> Row:
    """This machine cannot show it, for a reason that a reader can check."""
    return Row(what, verdict="not possible here", reason=reason)


def failed(what: str, reason: str) -> Row:
    """It went wrong before there was anything to compare."""
    return Row(what, verdict="fail", reason=reason)
