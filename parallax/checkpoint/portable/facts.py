import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from torch import nn

from parallax.checkpoint.portable.edits import Source, docstring_of
from parallax.config.models.base import ModelConfig

_CONFIGS = ("config", "self.config")
"""What the sources call a model's configuration."""
_REFUSED = {"is_noisy_at_eval": False, "diffusion_at_eval": False}
"""What no model has that is exported with code: `why_not_portable` keeps the others."""

FindClass = Callable[[str], type | None]
"""The class that a name of a module stands for."""


@dataclass(frozen=True)
class Facts:
    """What is settled by a model's class and its configuration's, whatever the values in it.

    Sources ask for it where an architecture differs from others; with the answers in their place, `fold` takes out
    what belongs to the others.
    """

    config: type[ModelConfig]
    values: Mapping[str, object]
    """Property of the configuration -> its value, of those that only name a constant."""
    overridden: frozenset[str]
    """Methods of the model that more than one of its classes has."""

    @classmethod
    def of(cls, config: type[ModelConfig], model: type[nn.Module]) -> Self:
        """Those of an architecture, by its classes."""
        values = {name: value for name in dir(config) if (value := _constant(config, name)) is not _NO_CONSTANT}
        ours = [kind for kind in model.__mro__ if kind.__module__.startswith("parallax.")]
        methods = Counter(name for kind in ours for name in vars(kind))
        return cls(config, values | _REFUSED, frozenset(name for name in methods if methods[name] > 1))

    def put_into(self, text: str, find: FindClass) -> str:
        """A module's source with `config.norm`, `isinstance(config, …)` and the like replaced by what they are."""
        source = Source(text)
        edits = []
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                if ast.unparse(node.value) in _CONFIGS and node.attr in self.values:
                    edits.append(source.replaced(node, _literal(self.values[node.attr])))
            elif isinstance(node, ast.Call) and (answer := self._is_instance(node, find)) is not None:
                edits.append(source.replaced(node, str(answer)))
        return source.apply(edits)

    def _is_instance(self, call: ast.Call, find: FindClass) -> bool | None:
        """What `isinstance(config, NAME)` gives; None: it is another call."""
        if ast.unparse(call.func) != "isinstance" or ast.unparse(call.args[0]) not in _CONFIGS:
            return None
        asked = call.args[1]
        kind = find(asked.id) if isinstance(asked, ast.Name) else None
        return issubclass(self.config, kind) if kind is not None else None


_NO_CONSTANT = object()


def _constant(config: type, name: str) -> object:
    """What a property gives if all it does is give it, as text, a truth value or None."""
    found = inspect.getattr_static(config, name)
    if not isinstance(found, property) or found.fget is None or not found.fget.__module__.startswith("parallax."):
        return _NO_CONSTANT
    [function] = ast.parse(textwrap.dedent(inspect.getsource(found.fget))).body
    assert isinstance(function, ast.FunctionDef)
    body = function.body[1:] if docstring_of(function) is not None else function.body
    if len(body) != 1 or not isinstance(body[0], ast.Return) or not isinstance(body[0].value, ast.Constant):
        return _NO_CONSTANT
    value = body[0].value.value
    # A number may be a size, which reads better by its name; none at all decides something.
    return value if isinstance(value, str | bool) or value in (None, 0) else _NO_CONSTANT


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
