"""What Python 3.10 lacks, so that no other module asks for the version of Python."""

from __future__ import annotations

import copyreg
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType

if sys.version_info >= (3, 11):
    from enum import StrEnum

    import tomllib
else:
    from enum import Enum

    import tomli as tomllib

    class StrEnum(str, Enum):
        """Members are their values, as text, as in `enum.StrEnum`."""

        __str__ = str.__str__
        __format__ = str.__format__  # type: ignore[assignment]


__all__ = ["StrEnum", "object_state", "qualified_name", "tomllib"]


def qualified_name(code: CodeType) -> str:
    """Return the qualified name of a function, by its code; without its class where the code does not know it."""
    name: str = getattr(code, "co_qualname", code.co_name)
    return name


def object_state(value: Any) -> Any:
    """Return what `object.__getstate__` does: the attributes, in a pair with those in slots if there are any."""
    if hasattr(object, "__getstate__"):
        return object.__getstate__(value)
    attributes = getattr(value, "__dict__", None) or None
    names: list[str] = copyreg._slotnames(type(value))  # type: ignore[attr-defined]  # noqa: SLF001 (object itself calls it)
    slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return (attributes, slots) if slots else attributes
