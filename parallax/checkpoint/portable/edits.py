import ast
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A stretch of a source, in bytes, and what stands there instead."""

    start: int
    end: int
    text: str = ""


class Source:
    """Python source with its syntax tree, and where the tree's nodes stand in it.

    Positions are bytes of UTF-8, in which `ast` counts columns.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self._bytes = text.encode()
        lines = self._bytes.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node begins and ends; a definition begins with its decorators."""
        first: ast.AST = node
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.decorator_list:
            first = node.decorator_list[0]
            return self._starts[first.lineno - 1], self._end(node)
        return self._starts[_line(first) - 1] + first.col_offset, self._end(node)  # type: ignore[attr-defined]

    def segment(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.slice(start, end)

    def slice(self, start: int, end: int) -> str:
        """The text between two positions."""
        return self._bytes[start:end].decode()

    def lines(self, first: int, last: int) -> tuple[int, int]:
        """Where whole lines, counted from 1 and both included, begin and end."""
        return self._starts[first - 1], self._starts[min(last, len(self._starts) - 1)]

    def statement_lines(self, node: ast.stmt) -> tuple[int, int]:
        """First and last line of a statement, with its decorators and the comments directly above it."""
        first = node.lineno
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.decorator_list:
            first = node.decorator_list[0].lineno
        while first > 1 and self._line(first - 1).lstrip().startswith(b"#"):
            first -= 1
        return first, node.end_lineno or node.lineno

    def without(self, node: ast.stmt) -> Edit:
        """Takes a statement out, with what belongs to it."""
        return Edit(*self.lines(*self.statement_lines(node)))

    def replaced(self, node: ast.AST, text: str) -> Edit:
        """Puts a text in a node's place."""
        return Edit(*self.span(node), text)

    def apply(self, edits: Iterable[Edit], within: tuple[int, int] | None = None) -> str:
        """The text, or a stretch of it, after the edits in it; of two that overlap, the outer one holds."""
        first, last = within or (0, len(self._bytes))
        parts, place = [], first
        for edit in sorted(edits, key=lambda edit: (edit.start, -edit.end)):
            if place <= edit.start and edit.end <= last:
                parts += [self._bytes[place : edit.start], edit.text.encode()]
                place = edit.end
        return b"".join((*parts, self._bytes[place:last])).decode()

    def _end(self, node: ast.AST) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _line(self, number: int) -> bytes:
        return self._bytes[self._starts[number - 1] : self._starts[number]]


def _line(node: ast.AST) -> int:
    return node.lineno  # type: ignore[attr-defined]


def docstring_of(node: ast.FunctionDef | ast.ClassDef) -> ast.Expr | None:
    """The statement that documents a definition."""
    first = node.body[0] if node.body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return first
    return None
