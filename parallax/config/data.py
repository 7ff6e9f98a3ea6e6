"""Which tokens a run reads: one corpus, several mixed by weight, or one with an anchor against forgetting."""

from fractions import Fraction
from math import gcd, lcm
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from parallax.config.section import PositiveInt, Section, UserPath

MAX_MIXTURE_PERIOD = 10**6
"""Samples after which a mixture's order of sources repeats, at most: the length of the table that is kept."""


class DataSource(Section):
    """One of several corpora that are mixed."""

    path: UserPath
    """Folder written by `parallax data prepare`, a .bin file of ids, or a `builtin:` corpus."""
    weight: Annotated[float, Field(gt=0)]
    """Share of the samples, relative to the other weights."""


class DataAnchor(Section):
    """A second corpus mixed in so that fine-tuning on `path` does not undo what was learned before."""

    path: UserPath
    """Folder of the corpus, or a `builtin:` corpus; usually what the model was trained on before."""
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the samples that come from it; `path` has the rest."""


class MixedSource(NamedTuple):
    """A corpus and how many of a period's samples come from it."""

    path: str
    weight: int


class DataConfig(Section):
    """Which tokens the run reads."""

    path: UserPath | None = None
    """Folder written by `parallax data prepare`, a .bin file of ids, or `builtin:python-manual`."""
    sources: Annotated[tuple[DataSource, ...], Field(strict=False, min_length=1)] | None = None
    """Several corpora, mixed by weight: a list of {path, weight}; give this or `path`."""
    anchor: DataAnchor | None = None
    """A second corpus beside `path`, mixed in against forgetting."""
    val_path: UserPath | None = None
    """Folder whose validation split, or .bin file all of which, is measured instead of the (first) source's."""
    document_mask: bool = False
    """Whether documents packed into one window are kept from seeing each other."""
    tokenizer: str = "byte"
    """Tokenizer of a `builtin:` corpus (byte, char, bpe:SIZE, a tokenizer.json), or of a .bin without notes."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of a `builtin:` corpus held out for validation."""
    limit_samples: PositiveInt | None = None
    """Use the first N samples of the order again and again (a test of memorising), instead of all."""

    @property
    def mixture(self) -> tuple[MixedSource, ...]:
        """The corpora in the order given, the main one first, with whole weights that have no common divisor."""
        shares = self._shares()
        weights = integer_weights([share for _, share in shares])
        return tuple(MixedSource(path, weight) for (path, _), weight in zip(shares, weights, strict=True))

    def _shares(self) -> list[tuple[str, Fraction]]:
        """Weights as the decimals they were written as: 0.1 is a tenth, not the float nearest to it."""
        if self.sources is not None:
            return [(source.path, Fraction(str(source.weight))) for source in self.sources]
        assert self.path is not None
        if self.anchor is None:
            return [(self.path, Fraction(1))]
        ratio = Fraction(str(self.anchor.ratio))
        return [(self.path, 1 - ratio), (self.anchor.path, ratio)]

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.path is None) == (self.sources is None):
            given = "both are given, set the other to null" if self.path else "neither is given"
            raise ValueError(f"give one of path and sources: {given}")
        if self.anchor is not None and self.path is None:
            raise ValueError("anchor goes with path; beside sources, give it as one more source")
        paths = [path for path, _ in self._shares()]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"{path} is given twice; name each corpus once, with the sum of its weights")
        period = sum(source.weight for source in self.mixture)
        if period > MAX_MIXTURE_PERIOD:
            raise ValueError(
                f"these weights repeat only after {period:,} samples, more than {MAX_MIXTURE_PERIOD:,}; "
                f"write them with fewer digits"
            )
        return self


def integer_weights(weights: list[Fraction]) -> list[int]:
    """The smallest whole numbers in the same proportions."""
    scale = lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    divisor = gcd(*whole)
    return [weight // divisor for weight in whole]
