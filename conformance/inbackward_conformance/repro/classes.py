"""Makes fewer classes of many: one that only one other builds on, one that adds nothing, one that is a call."""

from __future__ import annotations

import ast
from copy import deepcopy
from typing import TYPE_CHECKING

from inbackward_conformance.repro.specialize import Substituted

if TYPE_CHECKING:
    from collections.abc import Mapping


def merge_with_base(tree: ast.Module) -> bool:
    """Write a class together with its base, where nothing else names the base; return whether there was one."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    for node in classes.values():
        match node.bases:
            case [ast.Name(name)] if name in classes and names.count(name) == 1 and _may_merge(classes[name], node):
                base = classes[name]
                node.bases = base.bases
                node.body = _merged(base.body, node.body)
                tree.body.remove(base)
                return True
    return False


def _may_merge(base: ast.ClassDef, node: ast.ClassDef) -> bool:
    """Whether a class calls nothing of its base by `super()`, and both bind names alone, each once."""
    names = [_bound(statement) for owner in (base, node) for statement in owner.body]
    called = {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "super()"
    }
    plain = not (base.decorator_list or base.keywords or node.keywords)
    each_once = all(len(owner.body) == len({_bound(statement) for statement in owner.body}) for owner in (base, node))
    return plain and each_once and None not in names and not called & {_bound(statement) for statement in base.body}


def _merged(base: list[ast.stmt], own: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements of both, what the class itself says in the place of what its base does."""
    statements = {_bound(statement): statement for statement in [*base, *own]}
    return sorted(statements.values(), key=_place)


def _place(statement: ast.stmt) -> int:
    return 0 if isinstance(statement, ast.Expr) else 2 if isinstance(statement, ast.FunctionDef) else 1


def _bound(statement: ast.stmt) -> str | None:
    """Return the name that a statement of a class binds; the docstring binds the empty name, others may bind any."""
    match statement:
        case ast.FunctionDef(name) | ast.ClassDef(name) | ast.Assign([ast.Name(name)]):
            return name
        case ast.Expr(ast.Constant(str())):
            return ""
    return None


def replace_by_base(tree: ast.Module) -> bool:
    """Put its base in the place of a class of which nothing is left; return whether there was one."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name, [base], [], [], []):
                tree.body.remove(node)
                Substituted({name: base}).visit(tree)
                return True
    return False


def replace_sequentials(tree: ast.Module) -> bool:
    """Put the call of `nn.Sequential` in the place of a class that does no more than that."""
    uses = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not (node.args or node.keywords)
    ]
    found = {
        node.name: call
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and uses.count(node.name) == calls.count(node.name)
        and (call := _only_calls(node))
    }
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in found)]
    _Called(found).visit(tree)
    return bool(found)


def _only_calls(node: ast.ClassDef) -> ast.expr | None:
    """Return what the constructor of a class calls, where the class has nothing else."""
    without_docstring = node.body[1:] if ast.get_docstring(node) else node.body
    match without_docstring:
        case [ast.FunctionDef("__init__", ast.arguments(args=[_]), [ast.Expr(ast.Call(called, layers, []))])]:
            if (ast.unparse(called), list(map(ast.unparse, node.bases))) == ("super().__init__", ["nn.Sequential"]):
                return ast.Call(node.bases[0], layers, [])
    return None


class _Called(ast.NodeTransformer):
    def __init__(self, written: Mapping[str, ast.expr]) -> None:
        self._written = written

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in self._written:
            return deepcopy(self._written[node.func.id])
        return self.generic_visit(node)
