import ast
from collections.abc import Iterable, Iterator

_SCOPES = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def free_names(nodes: Iterable[ast.AST]) -> Iterator[ast.Name]:
    """Names that are read and that no function around them binds, annotations included.

    They stand for builtins and for what the module defines or imports. A name that a scope binds anywhere counts
    as bound in all of it, as in Python itself.
    """
    for node in nodes:
        yield from _free(node, frozenset())


def attributes(nodes: Iterable[ast.AST]) -> set[str]:
    """What is asked of objects: the x of every `….x`."""
    return {part.attr for node in nodes for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def _free(node: ast.AST, bound: frozenset[str]) -> Iterator[ast.Name]:
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id not in bound:
            yield node
        return
    inner = bound | _bound_in(node) if isinstance(node, _SCOPES) else bound
    outside = _evaluated_outside(node)
    for child in ast.iter_child_nodes(node):
        yield from _free(child, bound if child in outside else inner)


def _evaluated_outside(node: ast.AST) -> list[ast.AST]:
    """The parts of a function that its surroundings evaluate."""
    if not isinstance(node, ast.FunctionDef):
        return []
    return [*node.decorator_list, *([node.returns] if node.returns is not None else [])]


def _bound_in(scope: ast.AST) -> set[str]:
    bound = set()
    for node in ast.walk(scope):
        if isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not scope:
            bound.add(node.name)
    return bound
