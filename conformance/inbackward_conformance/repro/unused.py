"""Removes unused definitions from a script."""

from __future__ import annotations

import ast

from torch import nn

CALLED_BY_TORCH = {"forward", "backward", "step", "reset_parameters"}


def remove_unused(source: str) -> str:
    """Return the source without unused functions, classes and methods."""
    tree = ast.parse(source)
    while _drop_unused(tree):
        pass
    for node in ast.walk(tree):
        if hasattr(node, "body") and not node.body:
            node.body = [ast.Pass()]
    return ast.unparse(tree)


def names_read(source: str) -> set[str]:
    """Return the names that the source reads."""
    return _read(ast.parse(source))


def _read(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _drop_unused(tree: ast.Module) -> bool:
    """Remove functions, classes and methods that nothing names, and return whether there were any."""
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
    """Return whether a base class outside the script may call a method."""
    if method.name.startswith("__") or method.name in CALLED_BY_TORCH:
        return True
    bases = {ast.unparse(base) for base in owner.bases} - classes
    return hasattr(nn.Sequential, method.name) if bases <= {"nn.Module", "nn.Sequential"} else True
