"""Writes the value of an attribute in the place of its name, where it has one value only."""

from __future__ import annotations

import ast
from copy import deepcopy
from typing import TYPE_CHECKING, TypeGuard

from inbackward_conformance.repro.settled import is_settled

if TYPE_CHECKING:
    from collections.abc import Iterator


def settle_attributes(tree: ast.Module) -> bool:
    """Replace an attribute that a class sets once and reads from `self`; return whether there was one."""
    for owner in filter(_is_plain, tree.body):
        for body, statement, name in _set_in(owner):
            uses = [node for node in ast.walk(owner) if _is_read(node, name)]
            if (
                not uses
                or name == "training"
                or _times_bound(tree, name) > 1
                or not is_settled(statement.value, uses, owner)
            ):
                continue
            _Settled(name, statement.value).visit(owner)
            if not any(isinstance(node, ast.Attribute) and _reads(node, name) for node in ast.walk(tree)):
                body.remove(statement)
            return True
    return False


def _is_plain(node: ast.stmt) -> TypeGuard[ast.ClassDef]:
    """Whether a class has no base that may read its attributes, and no class in it that has a `self` of its own."""
    if not isinstance(node, ast.ClassDef) or any(isinstance(inner, ast.ClassDef) for inner in node.body):
        return False
    return {ast.unparse(base) for base in node.bases} <= {"nn.Module", "nn.Sequential"}


def _set_in(owner: ast.ClassDef) -> Iterator[tuple[list[ast.stmt], ast.Assign, str]]:
    """Yield the statements of a class and of its constructor that set one attribute, and where they stand."""
    for node in owner.body:
        match node:
            case ast.Assign([ast.Name(name)]):
                yield owner.body, node, name
            case ast.FunctionDef("__init__"):
                for statement in node.body:
                    match statement:
                        case ast.Assign([ast.Attribute(ast.Name("self"), name)]):
                            yield node.body, statement, name


def _times_bound(tree: ast.Module, name: str) -> int:
    """Return how often something of this name is made, or may be: a text may name it too."""
    return sum(
        1
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == name and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
        or (isinstance(node, ast.Constant) and node.value == name)
    )


def _reads(node: ast.Attribute, name: str) -> bool:
    return node.attr == name and isinstance(node.ctx, ast.Load)


def _is_read(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Attribute(ast.Name("self")):
            return _reads(node, name)
    return False


class _Settled(ast.NodeTransformer):
    def __init__(self, name: str, value: ast.expr) -> None:
        self._name = name
        self._value = value

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        return deepcopy(self._value) if _is_read(node, self._name) else node
