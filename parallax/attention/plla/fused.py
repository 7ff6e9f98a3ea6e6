import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_T = TypeVar("_T")
_failures: list[str] = []
"""Why nothing is compiled any more in this process; empty while compiling works."""


def fused(function: Callable[_P, _T], otherwise: Callable[_P, _T] | None = None) -> Callable[_P, _T]:
    """`function` compiled by Inductor for any shape; where that fails, after one warning, `otherwise`.

    Without one, that is the function as it is written.

    The compiler needs a C++ compiler for the CPU and Triton for a GPU, and is loaded only when first called.
    """

    @functools.cache
    def compiled() -> Callable[_P, _T]:
        return torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if not _failures:
            try:
                return compiled()(*args, **kwargs)
            except torch.OutOfMemoryError:
                raise  # of the call, and for the caller
            except Exception as error:  # whatever a compiler, its cache folder or a loader may raise
                _failures.append(next(iter(str(error).splitlines()), type(error).__name__))
                logging.getLogger(__name__).warning(
                    "PLLA's element-wise parts are not compiled, which makes it slower: %s", _failures[0]
                )
        return (otherwise or function)(*args, **kwargs)

    return call
