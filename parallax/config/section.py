import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
CountOrOff = Annotated[int, Field(ge=0)]
UserPath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path as people write it, with ~ for their home."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A frozen part of the configuration: unknown keys and silent type conversions are errors.

    The docstring below each field is its documentation in the JSON schema.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def of_form(pattern: str, expected: str) -> AfterValidator:
    """Text that a regular expression matches whole; the error says in words what was expected."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"{text!r} is not {expected}")
        return text

    return AfterValidator(check)


def derived(compute: Any, **constraints: Any) -> Any:
    """A field whose default is computed from the fields above it, so that a resolved configuration states it."""
    return Field(default_factory=compute, **constraints)
