"""Leaves out definitions that nothing in a script names."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLED_BY_TORCH = {"forward", "backward", "step", "reset_parameters"}


def remove_unused(source: str) -> str:
    """Return the source without functions, classes and methods that nothing names."""
    tree = ast.parse(source)
    while _drop_unused(tree):
        pass
    for node in ast.walk(tree):
        if hasattr(node, "body") and not node.body:
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def needed(definitions: Iterable[str], source: str) -> list[str]:
    """Return the definitions that the source needs, as they are: they may be what is tested."""
    trees = {definition: ast.parse(definition) for definition in definitions}
    kept: list[str] = []
    names = _read(ast.parse(source))
    while new := [each for each, tree in trees.items() if each not in kept and _may_need(tree, names)]:
        kept += new
        names = names.union(*(_read(trees[each]) for each in new))
    return [each for each in trees if each in kept]


def _read(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _may_need(tree: ast.Module, names: set[str]) -> bool:
    bound = _bound(tree)
    return not bound or bool(bound & names)


def _bound(tree: ast.Module) -> set[str]:
    definitions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    others = [inner for node in tree.body if node not in definitions for inner in ast.walk(node)]
    assigned = {node.id for node in others if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return {node.name for node in definitions} | assigned


def _drop_unused(tree: ast.Module) -> bool:
    """Drop functions, classes and methods that nothing names; return whether there were any."""
    names = _read(tree)
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
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
        if isinstance(node, ast.FunctionDef) and node.name not in attributes and not _is_called(node, owner, classes)
    ]
    for owner, node in unused:
        owner.body.remove(node)
    return bool(unused)


def _is_called(method: ast.FunctionDef, owner: ast.ClassDef, classes: set[str]) -> bool:
    """Whether a base that is not here may call a method by itself."""
    if method.name.startswith("__") or method.name in CALLED_BY_TORCH:
        return True
    bases = {ast.unparse(base) for base in owner.bases} - classes
    return hasattr(nn.Sequential, method.name) if bases <= {"nn.Module", "nn.Sequential"} else True
