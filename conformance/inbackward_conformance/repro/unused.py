"""Removes unused definitions from a script."""

from __future__ import annotations

import ast

from torch import nn

WEAK = "weakref.WeakKeyDictionary()"
"""What an adapter keeps its optimizers in: it holds none of them, so that nothing changes where nobody reads it."""

PURE = {"items", "keys", "values"}
"""Names of calls without an effect."""

CALLED_BY_TORCH = {"forward", "backward", "step", "reset_parameters"}


def remove_unused(source: str) -> str:
    """Return the source without unused functions, classes, methods and weak dictionaries, and without idle `pass`."""
    tree = ast.parse(source)
    while _drop_unused(tree) or _drop_unread(tree):
        pass
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [item for item in body if not isinstance(item, ast.Pass)] or [ast.Pass()]  # type: ignore[attr-defined]
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
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in names and not _may_register(node)
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


def _may_register(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Return whether a decorator may put a definition where it is called without its name."""
    return any(not isinstance(decorator, ast.Name) for decorator in node.decorator_list)


def _drop_unread(tree: ast.Module) -> bool:
    """Remove weak dictionaries that are only written to, and return whether there were any."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value) if ast.unparse(value) == WEAK:
                writes = [each for each in ast.walk(tree) if isinstance(each, ast.stmt) and _written(each, name)]
                uses = sum(isinstance(each, ast.Name) and each.id == name for each in ast.walk(tree))
                is_argument = any(isinstance(each, ast.arg) and each.arg == name for each in ast.walk(tree))
                if uses == len(writes) + 1 and not is_argument:
                    tree.body.remove(node)
                    _WithoutWrites(name).visit(tree)
                    return True
    return False


def _written(statement: ast.stmt, name: str) -> ast.expr | None:
    """Return the keys that a statement adds to a dictionary, if it does nothing else."""
    match statement:
        case ast.Assign([ast.Subscript(ast.Name(written), key)], ast.Constant(None)) if written == name:
            return None if any(isinstance(part, ast.NamedExpr) for part in ast.walk(key)) else key
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(written), "update"), [ast.Call(fromkeys, [keys], [])], [])):
            if written == name and ast.unparse(fromkeys) == "dict.fromkeys" and _is_pure(keys):
                return keys
    return None


def _is_pure(expression: ast.expr) -> bool:
    """Return whether nothing is lost where an expression is left out."""
    parts = [*ast.walk(expression)]
    calls = [part.func for part in parts if isinstance(part, ast.Call)]
    return not any(isinstance(part, ast.NamedExpr) for part in parts) and all(
        isinstance(called, ast.Attribute) and called.attr in PURE for called in calls
    )


class _WithoutWrites(ast.NodeTransformer):
    def __init__(self, name: str) -> None:
        self._name = name

    def visit(self, node: ast.AST) -> ast.AST | None:
        """Replace a statement that writes by what it evaluates, if that may have an effect."""
        written = _written(node, self._name) if isinstance(node, ast.stmt) else None
        if written is None:
            self.generic_visit(node)
            return node
        return ast.Pass() if _is_pure(written) else ast.Expr(written)


def _is_called(method: ast.FunctionDef, owner: ast.ClassDef, classes: set[str]) -> bool:
    """Return whether a base class outside the script may call a method."""
    if method.name.startswith("__") or method.name in CALLED_BY_TORCH:
        return True
    bases = {ast.unparse(base) for base in owner.bases} - classes
    return hasattr(nn.Sequential, method.name) if bases <= {"nn.Module", "nn.Sequential"} else True
