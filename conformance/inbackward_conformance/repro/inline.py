"""Takes definitions out of the suite, with all that they refer to, so that they stand alone.

Annotations, docstrings of functions and marks of pytest are left out, which makes them short. What the suite imports
from elsewhere is imported the same way.
"""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro.call_templates import CannotWrite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

PACKAGE = __name__.partition(".")[0]


class Inlined:
    """Definitions that stand alone, in an order in which they can be read.

    Args:
        helpers: a module whose definitions every source may name, whether it imports them or not.
        stand_ins: names to write instead of objects of the suite, by module and name of the object: of definitions in
            `helpers`, or of builtins.
        rewrite: a change of each definition that is taken in.

    Attributes:
        imports: import statements that they need.
        definitions: their source.
    """

    def __init__(
        self,
        helpers: ModuleType | None = None,
        stand_ins: Mapping[tuple[str, str], str] | None = None,
        rewrite: Callable[[ast.AST], ast.AST] = lambda node: node,
    ) -> None:
        self.imports: list[str] = []
        self.definitions: list[str] = []
        self._helpers = helpers
        self._stand_ins = stand_ins or {}
        self._rewrite = rewrite
        self._seen: set[tuple[str, str]] = set()

    def add(self, definition: Any) -> None:
        """Take in a class or a function of the suite."""
        self._add(sys.modules[definition.__module__], definition.__qualname__.partition(".")[0])

    def expression(self, module: ModuleType, source: str) -> str:
        """Return an expression, seen from `module`, when all that it refers to has been taken in."""
        tree = ast.parse(source, mode="eval")
        self._follow(module, tree)
        return ast.unparse(tree)

    def function(self, module: ModuleType, name: str) -> ast.FunctionDef:
        """Return a function, rewritten, when all that it refers to has been taken in."""
        node = _copy(_top_level(module)[name])
        assert isinstance(node, ast.FunctionDef)
        node.decorator_list = []  # marks of pytest, whatever they are called
        node = _tidied(self._rewrite(node))
        assert isinstance(node, ast.FunctionDef)
        self._follow(module, node)
        return node

    def _add(self, module: ModuleType, name: str) -> None:
        if (module.__name__, name) in self._seen:
            return
        self._seen.add((module.__name__, name))
        node = _top_level(module)[name]
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._add_imported(node, name)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and is_plain(getattr(module, name)):
            self.definitions.append(f"{name} = {expression(getattr(module, name))}")
        else:
            tidied = _tidied(self._rewrite(_copy(node)))
            self._follow(module, tidied)
            self.definitions.append(ast.unparse(tidied))

    def _add_imported(self, node: ast.Import | ast.ImportFrom, name: str) -> None:
        alias = next(alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) == name)
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == PACKAGE:
            home = importlib.import_module(str(node.module))
            if alias.name not in _top_level(home):
                raise CannotWrite(f"it refers to the whole module {node.module}.{alias.name}")
            self._add(home, alias.name)
            return
        one = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
        if (line := ast.unparse(one)) not in self.imports:
            self.imports.append(line)

    def _follow(self, module: ModuleType, node: ast.AST) -> None:
        """Take in what a definition in `module` names, and write stand-ins in the place of what has one."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
                if stand_in := self._stand_in(module, inner.id):
                    inner.id = stand_in
                home = next((home for home in (module, self._helpers) if home and inner.id in _top_level(home)), None)
                if home:
                    self._add(home, inner.id)

    def _stand_in(self, module: ModuleType, name: str) -> str | None:
        if name not in _top_level(module):
            return None
        meant = getattr(module, name, None)
        return self._stand_ins.get((getattr(meant, "__module__", ""), getattr(meant, "__qualname__", "")))


@cache
def _top_level(module: ModuleType) -> dict[str, ast.stmt]:
    """Return the statements that bind names in a module, by name."""
    with open(str(module.__file__), encoding="utf-8") as file:  # noqa: PTH123 (a path of a module is text)
        statements = ast.parse(file.read()).body
    found: dict[str, ast.stmt] = {}
    for node in statements:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                found[node.name] = node
            case ast.Import() | ast.ImportFrom():
                found |= {alias.asname or alias.name.partition(".")[0]: node for alias in node.names}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def _copy(node: ast.AST) -> ast.AST:
    return ast.parse(ast.unparse(node)).body[0]


def is_plain(value: Any) -> bool:
    """Whether `value` is data that its `repr` gives back."""
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)


def _tidied(node: ast.AST) -> ast.AST:
    tidied: ast.AST = _Tidy().visit(node)
    return ast.fix_missing_locations(tidied)


class _Tidy(ast.NodeTransformer):
    """Leaves out what a reader of a script can do without."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        node.decorator_list = [mark for mark in node.decorator_list if "mark" not in ast.unparse(mark)]
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        if text := ast.get_docstring(node):
            node.body[0] = ast.Expr(ast.Constant(text.partition("\n")[0]))
        node.body = node.body or [ast.Pass()]
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign | None:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value) if node.value else None
