import ast
import re
import sys
from collections.abc import Iterator, Mapping

from parallax.checkpoint.portable.edits import Edit, docstring_of
from parallax.checkpoint.portable.facts import Facts
from parallax.checkpoint.portable.module import PACKAGE, External, ModuleSource, Symbol
from parallax.checkpoint.portable.names import attributes, free_names
from parallax.checkpoint.portable.plain_config import plain_fields
from parallax.config.section import Section

_ALLOWED = {"torch", "transformers", *sys.stdlib_module_names}
_DATACLASS = External("from dataclasses import dataclass")
_LITERAL = External("from typing import Literal")


class Assembly:
    """The definitions that a module of ours comes down to, as one text that imports nothing of ours.

    From the module's own definitions it follows every name to where it is defined. Of a class it takes the methods
    that somebody asks for by name, that Python calls, and that a class of another package has as well. A section
    of the configuration becomes a dataclass of its fields and of what is asked of it, its parents' included: the
    model's own stands for all that it inherits from.

    Args:
        root: dotted name of the module; its text is taken whole.
        replaced: what names that it imports stand for instead.
        facts: of the model, which decide what differs between architectures.
    """

    def __init__(self, root: str, replaced: Mapping[str, Symbol], facts: Facts | None = None) -> None:
        self._root = root
        self._facts = facts
        self._modules = {root: ModuleSource(root, replaced, is_whole=True)}
        self._symbols: set[Symbol] = {Symbol(root, name) for name in self._modules[root].definitions}
        self._externals: set[External] = set()
        self._asked: set[str] = set()
        while self._grows():
            pass
        self._order = [symbol for module in self._module_order() for symbol in self._in_module(module)]
        self._written = self._choose_names()

    def text(self) -> str:
        """Imports, then definitions in an order in which Python can read them, each module's under its name.

        Raises:
            ImportError: a definition needs another package than torch and transformers.
        """
        blocks = []
        for module in self._module_order():
            symbols = self._in_module(module)
            if symbols:
                title = f"# {module.replace('.', '/')}.py"
                blocks.append("\n\n\n".join([title, *(self._definition(symbol) for symbol in symbols)]))
        return _tidy("\n\n\n".join([_import_lines(self._externals), *blocks]) + "\n")

    def _module(self, name: str) -> ModuleSource:
        if name not in self._modules:
            self._modules[name] = ModuleSource(name, facts=self._facts)
        return self._modules[name]

    def _grows(self) -> bool:
        """One round of following names; whether it found anything new."""
        before = len(self._symbols), len(self._externals), len(self._asked)
        for symbol in sorted(self._symbols):
            for module, node in self._kept_nodes(symbol):
                self._asked |= attributes([node])
                for name in free_names([node]):
                    target = self._target(module, name.id)
                    if isinstance(target, Symbol):
                        self._symbols.add(target)
                    elif target is not None:
                        self._externals.add(target)
            if self._section(symbol) is not None:
                self._externals |= {_DATACLASS, _LITERAL}
        return before != (len(self._symbols), len(self._externals), len(self._asked))

    def _target(self, module: str, name: str) -> Symbol | External | None:
        """Where a name is defined, through modules that only pass it on."""
        target = self._module(module).resolve(name)
        if isinstance(target, Symbol) and target.name not in self._module(target.module).definitions:
            return self._target(target.module, target.name)
        if isinstance(target, Symbol) and self._facts is not None:
            section, own = self._section(target), self._facts.config
            if section is not None and issubclass(own, section):
                return Symbol(own.__module__, own.__name__)
        return target

    def _section(self, symbol: Symbol) -> type[Section] | None:
        node = self._node(symbol)
        if not isinstance(node, ast.ClassDef) or not symbol.module.startswith(f"{PACKAGE}.config"):
            return None
        found = getattr(self._module(symbol.module).imported, symbol.name)
        return found if issubclass(found, Section) else None

    def _node(self, symbol: Symbol) -> ast.stmt:
        return self._module(symbol.module).definitions[symbol.name]

    def _kept_nodes(self, symbol: Symbol) -> Iterator[tuple[str, ast.AST]]:
        """The parts of a definition that will stand in the text, each with the module that it comes from."""
        node = self._node(symbol)
        if (section := self._section(symbol)) is not None:
            yield from self._kept_of_section(section)
        elif not isinstance(node, ast.ClassDef):
            yield symbol.module, node
        else:
            for part in (*node.bases, *node.keywords, *node.decorator_list, *node.body):
                if not isinstance(part, ast.FunctionDef) or self._is_kept(symbol, part):
                    yield symbol.module, part

    def _kept_of_section(self, section: type[Section]) -> Iterator[tuple[str, ast.FunctionDef]]:
        """What is asked of a section, from the nearest of its ancestors that has it."""
        found: set[str] = set()
        for kind in section.__mro__:
            if not kind.__module__.startswith(f"{PACKAGE}.config"):
                continue
            node = self._node(Symbol(kind.__module__, kind.__name__))
            assert isinstance(node, ast.ClassDef)
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name in self._asked - found:
                    found.add(part.name)
                    yield kind.__module__, part

    def _is_kept(self, owner: Symbol, method: ast.FunctionDef) -> bool:
        if owner.module == self._root or method.name in self._asked:
            return True
        kind = getattr(self._module(owner.module).imported, owner.name)
        is_special = method.name.startswith("__") and method.name.endswith("__")
        strangers = (base for base in kind.__mro__ if not base.__module__.startswith(PACKAGE))
        return is_special or any(hasattr(base, method.name) for base in strangers)

    def _module_order(self) -> list[str]:
        """Every module after those it imports from."""
        order: list[str] = []

        def visit(name: str) -> None:
            if name in order or name not in self._modules:
                return
            for target in self._modules[name].imports.values():
                if isinstance(target, Symbol) and target.module != name:
                    visit(target.module)
            order.append(name)

        visit(self._root)
        return order

    def _in_module(self, name: str) -> list[Symbol]:
        symbols = (symbol for symbol in self._symbols if symbol.module == name)
        return sorted(symbols, key=lambda symbol: self._node(symbol).lineno)

    def _choose_names(self) -> dict[Symbol, str]:
        """Symbol -> its name in the text: its own, with its module's added where another has it already."""
        taken = {_bound_name(external) for external in self._externals}
        chosen: dict[Symbol, str] = {}
        for symbol in self._order:
            name = symbol.name
            if name in taken:
                name = f"{symbol.name}_of_{symbol.module.rpartition('.')[2]}"
            taken.add(name)
            chosen[symbol] = name
        return chosen

    def _definition(self, symbol: Symbol) -> str:
        module, node = self._module(symbol.module), self._node(symbol)
        source = module.source
        section = self._section(symbol)
        if section is None:
            edits = [*self._renamed(symbol.module, node), *self._named(symbol), *self._left_out(symbol)]
            first, last = source.statement_lines(node)
            last = _with_documentation(source.tree, node, last)
            return source.apply(edits, source.lines(first, last)).rstrip()
        assert isinstance(node, ast.ClassDef)
        documented = docstring_of(node)
        lines = [f"@dataclass(frozen=True, kw_only=True)\nclass {self._written[symbol]}:\n"]
        lines += [f"    {source.segment(documented)}\n\n"] if documented is not None else []
        lines.append(plain_fields(section))
        for name, part in self._kept_of_section(section):
            origin = self._module(name).source
            edits = [*self._renamed(name, part)]
            lines.append("\n" + origin.apply(edits, origin.lines(*origin.statement_lines(part))))
        return "".join(lines).rstrip()

    def _renamed(self, module: str, node: ast.AST) -> Iterator[Edit]:
        """Names in a definition of a module that are written otherwise in the text."""
        source = self._module(module).source
        for name in free_names([node]):
            target = self._target(module, name.id)
            if isinstance(target, Symbol) and self._written.get(target, name.id) != name.id:
                yield source.replaced(name, self._written[target])

    def _named(self, symbol: Symbol) -> Iterator[Edit]:
        """A definition's own name, where it is written otherwise."""
        source, node = self._module(symbol.module).source, self._node(symbol)
        if self._written[symbol] != symbol.name:
            start, end = source.lines(node.lineno, node.lineno)
            line = source.slice(start, end)
            yield Edit(start, end, re.sub(rf"\b{re.escape(symbol.name)}\b", self._written[symbol], line, count=1))

    def _left_out(self, symbol: Symbol) -> Iterator[Edit]:
        """Methods that nobody asks for."""
        source, node = self._module(symbol.module).source, self._node(symbol)
        if isinstance(node, ast.ClassDef):
            kept = {id(part) for _, part in self._kept_nodes(symbol)}
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef))
            yield from (source.without(method) for method in methods if id(method) not in kept)


def _with_documentation(tree: ast.Module, node: ast.stmt, last: int) -> int:
    """The last line of a constant with the string below it that documents it."""
    place = tree.body.index(node) + 1
    after = tree.body[place] if place < len(tree.body) else None
    is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    return (after.end_lineno or last) if after is not None and is_text else last


def _bound_name(external: External) -> str:
    words = external.statement.split()
    return words[-1] if " as " in external.statement or words[0] == "from" else words[-1].partition(".")[0]


def _import_lines(externals: set[External]) -> str:
    """One statement a module, the standard library's first.

    Raises:
        ImportError: a package that a stranger cannot be asked to have.
    """
    plain = sorted(e.statement for e in externals if e.statement.startswith("import "))
    names: dict[str, list[str]] = {}
    for external in externals:
        if found := re.fullmatch(r"from (\S+) import (.+)", external.statement):
            names.setdefault(found[1], []).append(found[2])
    lines = [*plain, *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names))]
    for line in lines:
        if (package := line.split()[1].partition(".")[0]) not in _ALLOWED:
            raise ImportError(f"the model needs {package}: {line}")
    standard = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    other = [line for line in lines if line not in standard]
    return "\n".join([*standard, "", *other])


def _tidy(text: str) -> str:
    """Without the holes that methods left: one empty line within a definition, two between definitions."""
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    return re.sub(r"\n{3,}(?=[ ])", "\n\n", text)
