import ast
from collections import Counter
from collections.abc import Iterator

from parallax.checkpoint.portable.edits import Edit, Source
from parallax.checkpoint.portable.training import NONE_IN_INFERENCE


def without_nothing(source: Source) -> Iterator[Edit]:
    """None in place of what can be nothing else: fields that are, variables and attributes given None once.

    | what                                        | becomes                           |
    |---------------------------------------------|-----------------------------------|
    | `context.noise`                             | None                              |
    | `key = None`, and `key` in that function    | nothing, and None                 |
    | `self.rotation = None` in a class that sets | nothing, and None where the class |
    |   it nowhere else                           |   reads it                        |
    """
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in NONE_IN_INFERENCE:
            yield source.replaced(node, "None")
        elif isinstance(node, ast.FunctionDef):
            yield from _given_once(source, node, ast.Name)
        elif isinstance(node, ast.ClassDef):
            yield from _given_once(source, node, ast.Attribute)


def _given_once(
    source: Source, scope: ast.FunctionDef | ast.ClassDef, kind: type[ast.Name] | type[ast.Attribute]
) -> Iterator[Edit]:
    """Takes out the assignments of None to what is assigned nowhere else, and puts None where it is read."""
    places = [(node, ast.unparse(node)) for node in ast.walk(scope) if isinstance(node, kind)]
    stored = Counter(name for node, name in places if not isinstance(node.ctx, ast.Load))
    stored.update(argument.arg for argument in ast.walk(scope) if isinstance(argument, ast.arg))
    for node in ast.walk(scope):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not _is_none(node.value):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        name = ast.unparse(target)
        is_ours = isinstance(target, ast.Name) if kind is ast.Name else name.startswith("self.")
        # In the body of a class a field is a default, and no variable.
        if not is_ours or stored[name] != 1 or (node in scope.body and isinstance(scope, ast.ClassDef)):
            continue
        for read, text in places:
            if text == name and isinstance(read.ctx, ast.Load):
                yield source.replaced(read, "None")
        yield source.without(node)


def _is_none(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
