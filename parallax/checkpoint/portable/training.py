import ast
import re
from collections.abc import Callable, Iterator, Sequence

from parallax.checkpoint.portable.edits import Edit, Source, docstring_of

GIVEN_IN_TRAINING = ("targets", "objective", "per_token")
"""Parameters that only training and evaluation give. A function that cannot do without one is theirs alone."""
NONE_IN_INFERENCE = ("documents", "noise")
"""Parameters and fields that are None wherever text is read to go on with it."""
_DROPPED = {*GIVEN_IN_TRAINING, *NONE_IN_INFERENCE}

Signature = Callable[[str], Sequence[str] | None]
"""The positional parameters of what a name stands for; None: unknown, and left as it is."""


def without_training_arguments(text: str, elsewhere: Signature) -> str:
    """A module's source without the parameters, arguments and fields that have these names.

    Inside a function that had such a parameter its default stands in its place, and `fold` takes out what depends
    on it. An argument is found by its keyword, or by its place where the call names a function, a class or a
    method of the same module; in calls of a module (`block(hidden, …)`) they must therefore go by keyword.

    Args:
        text: of the module.
        elsewhere: the parameters of functions and classes that it imports.
    """
    source = Source(text)
    edits: list[Edit] = []
    for function in _functions(source.tree):
        if _is_training_only(function):
            edits.append(source.without(function))
            continue
        edits += _parameters(source, function)
        edits += _loads(source, function)
        edits += _documented(source, function)
    for node in source.tree.body:
        owner = node if isinstance(node, ast.ClassDef) else None
        calls = (part for part in ast.walk(node) if isinstance(part, ast.Call))
        edits += [edit for call in calls for edit in _arguments(source, call, owner, elsewhere)]
        edits += _fields(source, owner) if owner is not None else []
    return source.apply(edits)


def positional_parameters(node: ast.stmt) -> list[str] | None:
    """Of a function, or of the constructor of a class of fields or with an `__init__`; `self` is left out."""
    if isinstance(node, ast.FunctionDef):
        return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    if not isinstance(node, ast.ClassDef):
        return None
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return (positional_parameters(method) or [])[1:]
    return [name for part in node.body if (name := _field_name(part)) is not None]


def _field_name(node: ast.stmt) -> str | None:
    is_field = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    return node.target.id if is_field else None  # type: ignore[attr-defined]


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef):
            yield from (method for method in node.body if isinstance(method, ast.FunctionDef))


def _with_defaults(function: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    spoken = function.args
    positional = [*spoken.posonlyargs, *spoken.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spoken.defaults))
    return [
        *zip(positional, [*defaults, *spoken.defaults], strict=True),
        *zip(spoken.kwonlyargs, spoken.kw_defaults, strict=True),
    ]


def _is_training_only(function: ast.FunctionDef) -> bool:
    return any(
        argument.arg in GIVEN_IN_TRAINING and default is None for argument, default in _with_defaults(function)
    )


def _parameters(source: Source, function: ast.FunctionDef) -> Iterator[Edit]:
    spans, dropped = [], []
    for argument, default in _with_defaults(function):
        start, end = source.span(argument)
        spans.append((start, source.span(default)[1] if default is not None else end))
        dropped.append(argument.arg in _DROPPED)
    yield from _without_items(spans, dropped)
    # Who gives targets gets a loss; what is left gives logits.
    gave_more = any(argument.arg in GIVEN_IN_TRAINING for argument, _ in _with_defaults(function))
    if gave_more and isinstance(function.returns, ast.BinOp) and "Tensor" in ast.unparse(function.returns):
        yield source.replaced(function.returns, "Tensor")


def _without_items(spans: Sequence[tuple[int, int]], dropped: Sequence[bool]) -> Iterator[Edit]:
    """Takes items out of a list that commas part, each run of neighbours in one edit."""
    place = 0
    while place < len(spans):
        if not dropped[place]:
            place += 1
            continue
        first = place
        while place < len(spans) and dropped[place]:
            place += 1
        if place < len(spans):
            yield Edit(spans[first][0], spans[place][0])
        else:
            yield Edit(spans[first - 1][1] if first else spans[0][0], spans[-1][1])


def _loads(source: Source, function: ast.FunctionDef) -> Iterator[Edit]:
    instead = {
        argument.arg: "None" if default is None else source.segment(default)
        for argument, default in _with_defaults(function)
        if argument.arg in _DROPPED
    }
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in instead:
                yield source.replaced(node, instead[node.id])


def _documented(source: Source, function: ast.FunctionDef) -> Iterator[Edit]:
    documented = docstring_of(function)
    if documented is None:
        return
    text = source.segment(documented)
    for argument, _ in _with_defaults(function):
        if argument.arg in _DROPPED:
            # The entry, and the lines that stand further to the right.
            text = re.sub(rf"(?m)^( +){argument.arg}: .*\n(?:\1 +.*\n)*", "", text)
    text = re.sub(r"(?m)^ *Args:\n(?= *\n| *\"\"\")", "", text)
    yield source.replaced(documented, re.sub(r"\n(?: *\n)+", "\n\n", text))


def _arguments(source: Source, call: ast.Call, owner: ast.ClassDef | None, elsewhere: Signature) -> Iterator[Edit]:
    names = _parameters_called(source.tree, call, owner, elsewhere) or []
    dropped = [place < len(names) and names[place] in _DROPPED for place in range(len(call.args))]
    dropped += [keyword.arg in _DROPPED for keyword in call.keywords]
    yield from _without_items([source.span(node) for node in (*call.args, *call.keywords)], dropped)


def _parameters_called(
    tree: ast.Module, call: ast.Call, owner: ast.ClassDef | None, elsewhere: Signature
) -> Sequence[str] | None:
    called = call.func
    if isinstance(called, ast.Name):
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == called.id:
                return positional_parameters(node)
        return elsewhere(called.id)
    if owner is not None and isinstance(called, ast.Attribute) and ast.unparse(called.value) == "self":
        for method in owner.body:
            if isinstance(method, ast.FunctionDef) and method.name == called.attr:
                return (positional_parameters(method) or [])[1:]
    return None


def _fields(source: Source, kind: ast.ClassDef) -> Iterator[Edit]:
    for place, node in enumerate(kind.body):
        if _field_name(node) not in _DROPPED:
            continue
        yield source.without(node)
        after = kind.body[place + 1] if place + 1 < len(kind.body) else None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield source.without(after)
