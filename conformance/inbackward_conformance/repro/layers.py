"""Replaces classes that only put layers in a row, in a script, by the calls that make the row."""

from __future__ import annotations

import ast
from copy import deepcopy

SEQUENTIAL = "nn.Sequential"


def spell_out_layers(source: str) -> str:
    """Return the source with calls of `nn.Sequential` in the place of classes that are nothing but its layers.

    A class that is used otherwise, as the base of another, stays.
    """
    tree = ast.parse(source)
    rows = {node.name: row for node in tree.body if isinstance(node, ast.ClassDef) and (row := _row_of(node))}
    for name in [*rows]:
        uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
        if len(uses) > sum(_makes(node, name) for node in ast.walk(tree)):
            del rows[name]
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in rows)]
    return ast.unparse(_Replaced(rows).visit(tree))


def _row_of(node: ast.ClassDef) -> ast.Call | None:
    """Return the call of `nn.Sequential` that a class amounts to, if it does."""
    body = [item for item in node.body if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))]
    match [*map(ast.unparse, node.bases)], body:
        case [base], [ast.FunctionDef("__init__", given, [ast.Expr(ast.Call(made, layers, []))])]:
            only_self = ast.unparse(given) == "self" and not node.decorator_list
            if only_self and base == SEQUENTIAL and ast.unparse(made) == "super().__init__":
                return ast.Call(node.bases[0], layers, [])
    return None


def _makes(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Call(ast.Name(called), [], []):
            return called == name
    return False


class _Replaced(ast.NodeTransformer):
    def __init__(self, rows: dict[str, ast.Call]) -> None:
        self._rows = rows

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace a call of one of the classes, whose layers may be calls of others."""
        match node.func:
            case ast.Name(name) if name in self._rows:
                return self.generic_visit(deepcopy(self._rows[name]))
        return self.generic_visit(node)
