"""Makes fewer classes of many: one that only one other builds on, one that adds nothing, one that is a call."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def merge_with_base(tree: ast.Module) -> bool:
    """Write a class together with its base, where nothing else names the base; return whether there was one."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    for node in classes.values():
        match node.bases:
            case [ast.Name(name)] if (
                name in classes and names.count(name) == 1 and _may_merge(classes[name].body, node)
            ):
                base = classes[name]
                node.bases = base.bases
                node.body = _merged(base.body, node.body)
                tree.body.remove(base)
                return True
    return False


def _may_merge(base: list[ast.stmt], node: ast.ClassDef) -> bool:
    """Whether all that a class says replaces what its base says: it does not call that, and says it by name."""
    again = {_bound(statement) for statement in node.body} & {_bound(statement) for statement in base}
    called = {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "super()"
    }
    named = all(_bound(statement) or isinstance(statement, ast.Expr) for statement in [*base, *node.body])
    return named and not again & called


def _merged(base: list[ast.stmt], own: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of both, what the class itself says in the place of what its base does."""
    statements = {_bound(statement): statement for statement in [*base, *own]}
    return sorted(statements.values(), key=_place)


def _place(statement: ast.stmt) -> int:
    return 0 if isinstance(statement, ast.Expr) else 2 if isinstance(statement, ast.FunctionDef) else 1


def _bound(statement: ast.stmt) -> str:
    """Return the name that a statement of a class binds; empty: it is the docstring."""
    match statement:
        case ast.FunctionDef(name) | ast.ClassDef(name) | ast.Assign([ast.Name(name)]):
            return name
    return ""


def replace_by_bases(tree: ast.Module) -> bool:
    """Put its base in the place of a class of which nothing is left."""
    bases = {
        node.name: node.bases[0]
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.body and len(node.bases) == 1
    }
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in bases)]
    _Replace(names=bases, calls={}).visit(tree)
    return bool(bases)


def replace_sequentials(tree: ast.Module) -> bool:
    """Put the call of `nn.Sequential` in the place of a class that does no more than that."""
    found = {node.name: call for node in tree.body if isinstance(node, ast.ClassDef) and (call := _only_calls(node))}
    uses = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not (node.args or node.keywords)
    ]
    found = {name: call for name, call in found.items() if uses.count(name) == calls.count(name)}
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in found)]
    _Replace(names={}, calls=found).visit(tree)
    return bool(found)


def _only_calls(node: ast.ClassDef) -> ast.expr | None:
    """Return what the constructor of a class calls, where the class has nothing else."""
    without_docstring = node.body[1:] if ast.get_docstring(node) else node.body
    match without_docstring:
        case [ast.FunctionDef(name="__init__", body=[ast.Expr(ast.Call(args=layers, keywords=[]) as call)])]:
            if [ast.unparse(base) for base in node.bases] == ["nn.Sequential"] and ast.unparse(call.func) == (
                "super().__init__"
            ):
                return ast.Call(node.bases[0], layers, [])
    return None


class _Replace(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, ast.expr], calls: Mapping[str, ast.expr]) -> None:
        self._names = names
        self._calls = calls

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._names.get(node.id, node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in self._calls:
            return self._calls[node.func.id]
        return self.generic_visit(node)
