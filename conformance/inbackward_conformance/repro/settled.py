"""Says of a value whether it may be written wherever it is used."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def is_settled(value: ast.expr, uses: Sequence[ast.AST], scope: ast.AST) -> bool:
    """Whether `value` never changes: a constant, what torch has by a name, or options that nobody can change.

    `uses` are the places in `scope` where it is used: one alone that hands it on, or several that only unpack it.
    """
    match value:
        case ast.Constant():
            return True
        case ast.Attribute():
            return ast.unparse(value).startswith("torch.") and "(" not in ast.unparse(value)
        case ast.Dict(keys, values):
            if not all(isinstance(part, ast.Constant) for part in [*keys, *values]):
                return False
            allowed = list(_unpacked(scope)) if len(uses) > 1 else [*_unpacked(scope), *_handed_on(scope)]
            return all(any(use is found for found in allowed) for use in uses)
    return False


def _unpacked(scope: ast.AST) -> Iterable[ast.expr]:
    for node in ast.walk(scope):
        if isinstance(node, ast.keyword) and node.arg is None:
            yield node.value
        if isinstance(node, ast.Dict):
            yield from (value for key, value in zip(node.keys, node.values, strict=True) if key is None)


def _handed_on(scope: ast.AST) -> Iterable[ast.expr]:
    """Yield what is an argument, or is kept as an attribute, once in a call of the function."""
    repeated = (ast.For, ast.While, ast.Lambda, ast.comprehension)
    again = [inner for node in ast.walk(scope) if isinstance(node, repeated) for inner in ast.walk(node)]
    for node in ast.walk(scope):
        if any(node is inner for inner in again):
            continue
        match node:
            case ast.Call(_, args, keywords):
                yield from [*args, *(word.value for word in keywords)]
            case ast.Assign([ast.Attribute()], value):
                yield value
