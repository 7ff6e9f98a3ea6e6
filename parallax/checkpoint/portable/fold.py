import ast
import re
import textwrap
from collections.abc import Callable, Collection, Iterator

from parallax.checkpoint.portable.edits import Edit, Source, docstring_of
from parallax.checkpoint.portable.nothing import without_nothing

_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_COMPILING = "torch.compiler.is_compiling()"


def fold(text: str, overridden: Collection[str] = ()) -> str:
    """A module's source with everything taken out that cannot happen when a model only reads and writes text.

    Known are the constants that `without_training_arguments` and `Facts` put in, `self.training`, which is False
    (dropout is ours to draw, not a stranger's), and whether a compiler is at work: where that alone decides, the
    plain operations that it gets are taken, which every backward knows; in a finer condition the eager way is.

    Args:
        text: of the module.
        overridden: methods that do something in a class derived from the one at hand, whatever they do here.
    """
    text = _settle(text)
    while True:
        source = Source(text)
        edit = next(_simplifications(source, overridden), None)
        if edit is None:
            return text
        text = source.apply([edit])


def _settle(text: str) -> str:
    """The facts in place of what asks for them."""
    source = Source(text)
    edits = []
    whole = {id(node.test) for node in ast.walk(source.tree) if isinstance(node, ast.If)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and ast.unparse(node) == _COMPILING:
            edits.append(source.replaced(node, str(id(node) in whole)))
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "self.training":
            edits.append(source.replaced(node, "False"))
    return source.apply(edits)


def _simplifications(source: Source, overridden: Collection[str]) -> Iterator[Edit]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.expr):
            yield from _expression(source, node)
        elif isinstance(node, ast.If):
            yield from _if(source, node)
        if isinstance(node, ast.FunctionDef | ast.If | ast.For | ast.With | ast.While):
            yield from _unreachable(source, node.body)
        if isinstance(node, ast.FunctionDef):
            yield from _errors(source, node)
        if isinstance(node, ast.ClassDef):
            yield from _calls_of_nothing(source, node, overridden)
    yield from without_nothing(source)


def _expression(source: Source, node: ast.expr) -> Iterator[Edit]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant):
        yield source.replaced(node, str(not node.operand.value))
    elif isinstance(node, ast.BoolOp):
        decides = isinstance(node.op, ast.Or)
        for value in node.values:
            if not isinstance(value, ast.Constant):
                continue
            rest = [other for other in node.values if other is not value]
            yield source.replaced(
                node, str(decides) if bool(value.value) is decides else _joined(source, node, rest)
            )
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, operator, right = node.left, node.ops[0], node.comparators[0]
        known = isinstance(left, ast.Constant) and isinstance(right, ast.Constant) and right.value is None
        if known and isinstance(operator, ast.Is | ast.IsNot):
            same = isinstance(left, ast.Constant) and left.value is None
            yield source.replaced(node, str(same is isinstance(operator, ast.Is)))
        elif (
            isinstance(left, ast.Constant)
            and isinstance(right, ast.Constant)
            and isinstance(operator, ast.Eq | ast.NotEq)
        ):
            equal = left.value == right.value
            yield source.replaced(node, str(equal is isinstance(operator, ast.Eq)))
    elif isinstance(node, ast.IfExp) and isinstance(node.test, ast.Constant):
        yield source.replaced(node, source.segment(node.body if node.test.value else node.orelse))


def _joined(source: Source, node: ast.BoolOp, values: list[ast.expr]) -> str:
    return (" or " if isinstance(node.op, ast.Or) else " and ").join(source.segment(value) for value in values)


def _if(source: Source, node: ast.If) -> Iterator[Edit]:
    if not isinstance(node.test, ast.Constant) or source.segment(node).startswith("elif"):
        return
    taken = node.body if node.test.value else node.orelse
    start, end = source.lines(*source.statement_lines(node))
    if not taken:
        yield Edit(start, end)
        return
    # Comments between the condition and its first statement go with the statement.
    first = min((node.test.end_lineno or 0) + 1, taken[0].lineno) if taken is node.body else taken[0].lineno
    block = source.slice(*source.lines(first, taken[-1].end_lineno or taken[-1].lineno))
    yield Edit(start, end, textwrap.indent(textwrap.dedent(block), " " * node.col_offset))


def _unreachable(source: Source, block: list[ast.stmt]) -> Iterator[Edit]:
    for node in block[:-1]:
        if isinstance(node, _ENDS):
            last = block[-1].end_lineno or block[-1].lineno
            yield Edit(*source.lines((node.end_lineno or node.lineno) + 1, last))


def _errors(source: Source, function: ast.FunctionDef) -> Iterator[Edit]:
    """Errors that a function says it raises, and no longer does."""
    documented = docstring_of(function)
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(function))
    if documented is not None and not raises and "Raises:" in source.segment(documented):
        text = re.sub(r"\n *\n *Raises:\n(?:.*\n)*?(?= *(?:\"\"\"|\n))", "\n", source.segment(documented))
        if text != source.segment(documented):
            yield source.replaced(documented, text)


def _calls_of_nothing(source: Source, kind: ast.ClassDef, overridden: Collection[str]) -> Iterator[Edit]:
    """`self._drop(x, …)` where the method has come down to `return x`, or to `return None`."""
    for method in kind.body:
        given = _given_back(method) if isinstance(method, ast.FunctionDef) else None
        if given is None or method.name in overridden:  # type: ignore[attr-defined]
            continue
        for node in ast.walk(kind):
            is_call = isinstance(node, ast.Call) and ast.unparse(node.func) == f"self.{method.name}"  # type: ignore[attr-defined]
            if is_call and (text := given(source, node)) is not None:  # type: ignore[arg-type]
                yield source.replaced(node, text)


def _given_back(method: ast.FunctionDef) -> Callable[[Source, ast.Call], str | None] | None:
    """What a call of a private method that does nothing can be replaced by; None: it does something."""
    body = method.body[1:] if docstring_of(method) is not None else method.body
    if not (method.name.startswith("_") and not method.name.endswith("__") and len(body) == 1):
        return None
    [statement] = body
    if not isinstance(statement, ast.Return):
        return None
    if isinstance(statement.value, ast.Constant) and statement.value.value is None:
        return lambda source, call: "None"
    if not isinstance(statement.value, ast.Name):
        return None
    names = [argument.arg for argument in method.args.args[1:]]
    if statement.value.id not in names:
        return None
    place = names.index(statement.value.id)

    def argument(source: Source, call: ast.Call) -> str | None:
        return source.segment(call.args[place]) if place < len(call.args) else None

    return argument
