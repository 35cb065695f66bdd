"""Copies definitions of the suite or of an adapter, and everything that they refer to, into a script.

Annotations, docstrings of functions and pytest marks are left out to keep scripts short. Imports from other packages
are copied as they are.
"""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance.plan.literals import expression
from inbackward_conformance.repro.failure import CannotWrite

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from types import ModuleType

PACKAGE = __name__.partition(".")[0]


class Inlined:
    """Definitions that need nothing of the suite, each after those that it refers to.

    Args:
        helpers: a module whose definitions may be used without an import.
        stand_ins: names of definitions in `helpers`, or of builtins, to write instead of objects of the suite, by
            module and name of the object.
        rewrite: transformation of each added definition.
        source_of: returns the source of a value that has one of its own, and adds what it needs to the definitions;
            None for any other value.
        defined: names that the script defines otherwise, so that nothing of the suite is meant by them.

    Attributes:
        imports: import statements that the definitions need.
        definitions: source of the definitions.
    """

    def __init__(
        self,
        helpers: ModuleType | None = None,
        stand_ins: Mapping[tuple[str, str], str] | None = None,
        rewrite: Callable[[ast.AST], ast.AST] = lambda node: node,
        source_of: Callable[[Any, Inlined], str | None] = lambda *_: None,
        defined: Collection[str] = (),
    ) -> None:
        self.imports: list[str] = []
        self.definitions: list[str] = []
        self._helpers = helpers
        self._stand_ins = stand_ins or {}
        self._rewrite = rewrite
        self._source_of = source_of
        self._defined = defined
        self._seen: set[tuple[str, str]] = set()

    def add(self, definition: Any) -> None:
        """Add a class or function of the suite."""
        self._add(sys.modules[definition.__module__], definition.__qualname__.partition(".")[0])

    def add_named(self, module: ModuleType, name: str) -> None:
        """Add what a module binds to a name at its top level.

        Raises:
            CannotWrite: the module has no statement there that binds it.
        """
        if name not in _top_level(module):
            raise CannotWrite(f"{module.__name__} binds {name!r} in no statement at its top level")
        self._add(module, name)

    def add_import(self, statement: str) -> None:
        """Add an import statement, unless it is there."""
        if statement not in self.imports:
            self.imports.append(statement)

    def expression(self, module: ModuleType, source: str) -> str:
        """Return an expression in `module`, and add everything that it refers to."""
        tree = ast.parse(source, mode="eval")
        self._follow(module, tree)
        return ast.unparse(tree)

    def function(self, module: ModuleType, name: str) -> ast.FunctionDef:
        """Return a function, rewritten, and add everything that it refers to."""
        node = _copy(_top_level(module)[name])
        assert isinstance(node, ast.FunctionDef)
        node.decorator_list = []  # pytest marks, under any name
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
        elif isinstance(node, ast.Assign) and (source := self._source_of(getattr(module, name), self)):
            self.definitions.append(f"{name} = {source}")
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
        single = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
        self.add_import(ast.unparse(single))

    def _follow(self, module: ModuleType, node: ast.AST) -> None:
        """Add everything that a definition in `module` names, and replace names that have a stand-in."""
        free = [name for name in _free_names(node) if name.id not in self._defined]
        for inner in ast.walk(node):
            if inner in free and isinstance(inner, ast.Name):
                if stand_in := self._stand_in(module, inner.id):
                    inner.id = stand_in
                home = next((home for home in (module, self._helpers) if home and inner.id in _top_level(home)), None)
                if home:
                    self._add(home, inner.id)

    def _stand_in(self, module: ModuleType, name: str) -> str | None:
        if name not in _top_level(module):
            return None
        target = getattr(module, name, None)
        return self._stand_ins.get((getattr(target, "__module__", ""), getattr(target, "__qualname__", "")))


@cache
def _top_level(module: ModuleType) -> dict[str, ast.stmt]:
    """Return the statements at the top level of a module that bind names, by name."""
    statements: dict[str, ast.stmt] = {}
    for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                statements[node.name] = node
            case ast.Import() | ast.ImportFrom():
                statements |= {alias.asname or alias.name.partition(".")[0]: node for alias in node.names}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                statements[name] = node
    return statements


def _free_names(node: ast.AST) -> Iterator[ast.Name]:
    """Yield the names that are read in a definition, except where they are a local variable or a parameter."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node
    of_function = ast.walk(node) if isinstance(node, ast.FunctionDef | ast.Lambda) else ()
    local = {_bound_name(part) for part in of_function}
    for child in ast.iter_child_nodes(node):
        yield from (name for name in _free_names(child) if name.id not in local)


def _bound_name(node: ast.AST) -> str:
    """Return the name of the parameter or variable that a node binds; empty if it binds none."""
    match node:
        case ast.arg(name) | ast.Name(name, ast.Store()):
            return name
    return ""


def _copy(node: ast.AST) -> ast.AST:
    return ast.parse(ast.unparse(node)).body[0]


def is_plain(value: Any) -> bool:
    """Return whether `value` is data whose `repr` is an expression for it."""
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return value is None or isinstance(value, bool | int | float | str)


def _tidied(node: ast.AST) -> ast.AST:
    tidied: ast.AST = _Tidy().visit(node)
    return ast.fix_missing_locations(tidied)


class _Tidy(ast.NodeTransformer):
    """Removes annotations, with names that a value had only for one, pytest marks and docstrings of functions."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        node.decorator_list = [mark for mark in node.decorator_list if "mark" not in ast.unparse(mark)]
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        self.generic_visit(node)
        match node.body:
            case [*before, ast.Assign([ast.Name(name)], value), ast.Return(ast.Name(returned))] if name == returned:
                node.body = [*before, ast.Return(value)]
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
