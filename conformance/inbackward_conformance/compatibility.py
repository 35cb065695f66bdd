"""What Python 3.10 lacks, so that no other module asks for the version of Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType

if sys.version_info >= (3, 11):
    from enum import StrEnum

    import tomllib

    object_state = object.__getstate__

    def qualified_name(code: CodeType) -> str:
        """Return the qualified name of a function, by its code."""
        return code.co_qualname

else:
    from enum import Enum

    import tomli as tomllib

    class StrEnum(str, Enum):
        """Members are their values, as text, as in `enum.StrEnum`."""

        __str__ = str.__str__
        __format__ = str.__format__  # type: ignore[assignment]

    def qualified_name(code: CodeType) -> str:
        """Return the name of a function, by its code, which does not know the qualified name."""
        return code.co_name

    def object_state(value: Any, /) -> Any:
        """Return what `object.__getstate__` does: the attributes, in a pair with those in slots if there are any."""
        attributes = getattr(value, "__dict__", None) or None
        names = [name for each in type(value).__mro__ for name in _slots_of(each)]
        slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
        return (attributes, slots) if slots else attributes

    def _slots_of(owner: type) -> list[str]:
        slots = vars(owner).get("__slots__", ())
        names = [name for name in ([slots] if isinstance(slots, str) else slots) if name not in NOT_SLOTS]
        prefix = f"_{owner.__name__.lstrip('_')}"
        return [f"{prefix}{name}" if name.startswith("__") and not name.endswith("__") else name for name in names]

    NOT_SLOTS = ("__dict__", "__weakref__")

__all__ = ["StrEnum", "object_state", "qualified_name", "tomllib"]
