"""Dataclasses that print as the expression that builds them, and the function that reads such an expression."""

from __future__ import annotations

import ast
import math
from dataclasses import MISSING, Field, fields
from typing import Any

from inbackward_conformance.compatibility import StrEnum


class Printable:
    """Base of the dataclasses in a plan; `repr` returns an expression that builds the object, without its defaults."""

    def __repr__(self) -> str:
        """Return the expression."""
        parts = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if _required(field):
                parts.append(expression(value))
            elif value != _default(field):
                parts.append(f"{field.name}={expression(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"


def expression(value: Any) -> str:
    """Return an expression for `value`: its `repr`, except for floats that are not finite, and for members of enums."""
    if isinstance(value, StrEnum):
        return repr(value.value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, tuple):
        inside = ", ".join(map(expression, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {expression(item)}" for key, item in value.items()) + "}"
    return repr(value)


def read(text: str) -> Any:
    """Return the value of an expression that `expression` returned, without evaluating code.

    Raises:
        ValueError: `text` is any other expression.
    """
    return _value(ast.parse(text, mode="eval").body)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(ast.Name("float"), [ast.Constant(str(value))]):
            return float(value)
        case ast.Call(ast.Name(name), args, keywords) if name in (classes := _classes(Printable)):
            kwargs = {str(keyword.arg): _value(keyword.value) for keyword in keywords}
            return classes[name](*map(_value, args), **kwargs)
        case ast.Tuple(items):
            return tuple(map(_value, items))
        case ast.List(items):
            return list(map(_value, items))
        case ast.Dict(keys, values):
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
    return ast.literal_eval(node)


def _classes(base: type) -> dict[str, type]:
    classes: dict[str, type] = {}
    subclass: type
    for subclass in base.__subclasses__():
        classes |= {subclass.__name__: subclass} | _classes(subclass)
    return classes


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
