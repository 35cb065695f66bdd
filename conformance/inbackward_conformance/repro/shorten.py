"""Leaves out of a script what its failure has no need of: definitions that nothing names, classes that add nothing."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from inbackward_conformance.repro.in_place import write_in_place
from inbackward_conformance.repro.specialize import CALLED_BY_TORCH, specialize

if TYPE_CHECKING:
    from collections.abc import Mapping

CALLED_BY_SPAWN = {"main"}


def shortened(source: str) -> str:
    """Return the source, shorter, that does the same."""
    tree = ast.parse(source)
    ways = (specialize, _drop_unused, write_in_place, _replace_by_bases, _replace_sequentials)
    while any(way(tree) for way in ways):
        pass
    return ast.unparse(ast.fix_missing_locations(tree))


def _drop_unused(tree: ast.Module) -> bool:
    """Drop functions and classes that nothing names; torch calls some methods by itself."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | CALLED_BY_SPAWN
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | CALLED_BY_TORCH
    unused: list[tuple[ast.Module | ast.ClassDef, ast.stmt]] = [
        (tree, node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in names
    ]
    unused += [
        (owner, node)
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and node.name not in attributes and not node.name.startswith("__")
    ]
    for owner, node in unused:
        owner.body.remove(node)
    return bool(unused)


def _replace_by_bases(tree: ast.Module) -> bool:
    """Put its base in the place of a class of which nothing is left."""
    bases = {
        node.name: node.bases[0]
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.body and len(node.bases) == 1
    }
    tree.body = [node for node in tree.body if not (isinstance(node, ast.ClassDef) and node.name in bases)]
    _Replace(names=bases, calls={}).visit(tree)
    return bool(bases)


def _replace_sequentials(tree: ast.Module) -> bool:
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
