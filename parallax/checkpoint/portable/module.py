import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

from parallax.checkpoint.portable.edits import Source
from parallax.checkpoint.portable.facts import Facts
from parallax.checkpoint.portable.fold import fold
from parallax.checkpoint.portable.training import positional_parameters, without_training_arguments

PACKAGE = "parallax"


@dataclass(frozen=True, order=True)
class Symbol:
    """A name at the top of a module of ours."""

    module: str
    name: str


@dataclass(frozen=True)
class External:
    """What an import of another package's module binds."""

    statement: str
    """The import that binds it alone."""


Target = Symbol | External


class ModuleSource:
    """A module of ours: its text without what only training needs, what it defines, and what it imports.

    Args:
        name: dotted.
        replaced: what some of its imported names stand for instead.
        facts: of the model.
        is_whole: leave its text as it is.
    """

    def __init__(
        self,
        name: str,
        replaced: Mapping[str, Symbol] | None = None,
        *,
        facts: Facts | None = None,
        is_whole: bool = False,
    ) -> None:
        self.name = name
        text = Path(_spec(name)).read_text(encoding="utf-8")
        self.imports = _imports(ast.parse(text)) | dict(replaced or {})
        if not is_whole:
            text = without_training_arguments(text, self._parameters_elsewhere)
            text = fold(text) if facts is None else fold(facts.put_into(text, self._class), facts.overridden)
        self.source = Source(text)
        self.definitions = _definitions(self.source.tree)

    @cached_property
    def imported(self) -> ModuleType:
        """The module itself."""
        return importlib.import_module(self.name)

    def resolve(self, name: str) -> Target | None:
        """What a name at the top of the module stands for; None: a builtin, or nothing of the module's."""
        if name in self.definitions:
            return Symbol(self.name, name)
        return self.imports.get(name)

    def _class(self, name: str) -> type | None:
        found = getattr(self.imported, name, None)
        return found if isinstance(found, type) else None

    def _parameters_elsewhere(self, name: str) -> list[str] | None:
        target = self.imports.get(name)
        if not isinstance(target, Symbol):
            return None
        text = Path(_spec(target.module)).read_text(encoding="utf-8")
        node = _definitions(ast.parse(text)).get(target.name)
        return positional_parameters(node) if node is not None else None


def _spec(name: str) -> str:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(name)
    return found.origin


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Name -> the statement that binds it, of functions, classes and constants."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            names = (name for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
            found |= {name.id: node for name in names}
    return found


def _imports(tree: ast.Module) -> dict[str, Target]:
    """Name -> what an import statement at the top binds it to."""
    found: dict[str, Target] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = f" as {alias.asname}" if alias.asname else ""
                found[alias.asname or alias.name.partition(".")[0]] = External(f"import {alias.name}{bound}")
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.partition(".")[0] == PACKAGE:
                    found[alias.asname or alias.name] = Symbol(node.module, alias.name)
                else:
                    bound = f" as {alias.asname}" if alias.asname else ""
                    found[alias.asname or alias.name] = External(f"from {node.module} import {alias.name}{bound}")
    return found
