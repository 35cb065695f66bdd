"""Says of a value whether it may be written wherever it is used."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def is_settled(value: ast.expr, uses: Sequence[ast.AST], scope: ast.AST) -> bool:
    """Whether `value` never changes: a constant, what torch has by a name, or options that nothing can change.

    `uses` are the places in `scope` where it is used: one alone, or several that only unpack it.
    """
    match value:
        case ast.Constant():
            return True
        case ast.Attribute():
            return ast.unparse(value).startswith("torch.") and "(" not in ast.unparse(value)
        case ast.Dict(keys, values):
            constants = all(isinstance(part, ast.Constant) for part in [*keys, *values])
            unpacked = list(_unpacked(scope))
            return constants and (len(uses) == 1 or all(any(use is found for found in unpacked) for use in uses))
    return False


def _unpacked(scope: ast.AST) -> Iterable[ast.expr]:
    for node in ast.walk(scope):
        if isinstance(node, ast.keyword) and node.arg is None:
            yield node.value
        if isinstance(node, ast.Dict):
            yield from (value for key, value in zip(node.keys, node.values, strict=True) if key is None)
