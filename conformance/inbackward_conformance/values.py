"""Values of any kind, such as optimizer states: what they are made of, and where two of them differ first."""

from __future__ import annotations

import cmath
import inspect
import struct
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from enum import Enum
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from inbackward_conformance.compatibility import object_state
from inbackward_conformance.tensors import bits, close, copied, describe_difference

MOST_LEAVES = 10_000
DEEPEST = 100
NUMBERS_AND_TEXT = (type(None), bool, int, float, complex, str, bytes)
NAMED = (type, ModuleType, Enum, torch.dtype, torch.device, torch.layout, torch.memory_format)


class Incomparable(str):
    """Stands for a value that cannot be compared, and says what it is."""

    __slots__ = ()


def flatten(value: Any) -> dict[str, Any]:
    """Return copies of the tensors, numbers and texts that a value is made of, by path, such as `'left'[0].scale`.

    An object is made of its attributes and, if its class defines how it is pickled, of what is pickled. A function, a
    class or a module is its name.
    """
    leaves: dict[str, Any] = {}
    if isinstance(value, dict) and all(map(_has_place, value)):
        for place, part in _parts(value):
            _flatten(part, place[1:-1], (id(value),), leaves)
    else:
        _flatten(value, "", (), leaves)
    return leaves


def first_difference(expected: Mapping[str, Any], actual: Mapping[str, Any], tolerance: float = 0.0) -> str:
    """Return where two flattened values differ first, and how; empty if they are equal.

    The tolerance is relative to the largest value of a tensor, and to the larger one of two numbers.
    """
    for path in sorted({*expected, *actual}):
        if path not in expected or path not in actual:
            return f"{path} is {'missing' if path in expected else 'unexpected'}"
        want, got = expected[path], actual[path]
        if isinstance(want, Tensor) and isinstance(got, Tensor):
            if not close(want, got, tolerance):
                return f"{path}: {describe_difference(want, got)}"
        elif type(want) is not type(got) or not (want == got or _near(want, got, tolerance)):
            return f"{path}: {got!r}, expected {want!r}"
    return ""


def first_incomparable(leaves: Mapping[str, Any]) -> str:
    """Return what in a flattened value cannot be compared, and why; empty if everything can."""
    return next((f"{path} is {leaf}" for path, leaf in leaves.items() if isinstance(leaf, Incomparable)), "")


def tensors_in(value: Any) -> list[Tensor]:
    """Return each tensor that a value holds, in containers and in attributes of objects, once."""
    seen: dict[int, Any] = {}
    left = [value]
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen[id(each)] = each
            left += [part for _, part in reversed(_parts(each))]
    return [each for each in seen.values() if isinstance(each, Tensor)]


def _flatten(value: Any, path: str, within: tuple[int, ...], leaves: dict[str, Any]) -> None:
    """Add the leaves of `value`, which is a part of the values with the ids `within`."""
    inside = (*within, id(value))
    if len(leaves) >= MOST_LEAVES or len(within) >= DEEPEST:
        leaves[path] = Incomparable(f"part of a value with more than {MOST_LEAVES} parts, or {DEEPEST} levels")
    elif id(value) in within:
        leaves[path] = f"the value {len(within) - within.index(id(value))} levels above"
    elif isinstance(value, Tensor):
        _flatten_tensor(value, path, inside, leaves)
    elif hasattr(value, "__array_interface__"):
        _flatten_array(value, path, inside, leaves)
    elif isinstance(value, NUMBERS_AND_TEXT):
        leaves[path] = value
    elif isinstance(value, NAMED) or inspect.isroutine(value):
        leaves[path] = _name_of(value)
    elif isinstance(value, Mapping | AbstractSet) and not all(map(_has_place, value)):
        leaves[path] = Incomparable(f"a {type(value).__name__} of objects, which have no order")
    elif isinstance(value, Mapping | AbstractSet | list | tuple | deque):
        leaves |= {} if value else {f"len({path})": 0}
        for place, part in _parts(value):
            _flatten(part, f"{path}{place}", inside, leaves)
    else:
        _flatten_object(value, path, inside, leaves)


def _flatten_tensor(tensor: Tensor, path: str, inside: tuple[int, ...], leaves: dict[str, Any]) -> None:
    try:
        copy = copied(tensor)
        if type(tensor) not in {Tensor, nn.Parameter}:
            bits(copy.to_dense())
        leaves[path] = copy
    except (RuntimeError, TypeError):  # a subclass that does not support what a comparison needs
        names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
        for name in names:
            _flatten(getattr(tensor, name), f"{path}.{name}", inside, leaves)
        if not names:
            leaves[path] = Incomparable(f"a {type(tensor).__name__}, which cannot be copied")


def _flatten_array(array: Any, path: str, inside: tuple[int, ...], leaves: dict[str, Any]) -> None:
    try:
        values = torch.as_tensor(array.copy())
    except TypeError:  # of objects or texts
        values = array.tolist()
    _flatten(values, path, inside, leaves)


def _flatten_object(value: Any, path: str, inside: tuple[int, ...], leaves: dict[str, Any]) -> None:
    name = _name_of(type(value))
    parts = _parts(value)
    defined = {attribute for base in type(value).__mro__[:-1] for attribute in vars(base)}
    if own_pickle := defined & {"__reduce__", "__reduce_ex__"}:
        with suppress(Exception):  # it cannot be pickled
            parts.append((".__reduce__()", value.__reduce_ex__(4)))
    if not parts and (own_pickle or not hasattr(value, "__dict__")):
        leaves[path] = Incomparable(f"of class {name}, which shows nothing to compare")
        return
    leaves[f"{path}.__class__"] = name
    for place, part in parts:
        _flatten(part, f"{path}{place}", inside, leaves)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return the parts of a container, or the attributes of an object, with the place of each."""
    if isinstance(value, (*NUMBERS_AND_TEXT, *NAMED, Tensor)) or inspect.isroutine(value):
        return []
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if isinstance(value, list | tuple | deque):
        return [(f"[{number}]", part) for number, part in enumerate(value)]
    if isinstance(value, AbstractSet):
        return [(f"{{{part!r}}}", part) for part in value]
    state = object_state(value)  # not that of its class, which may leave something out
    dictionaries = state if isinstance(state, tuple) else (state,)
    return [(f".{name}", part) for each in dictionaries if each for name, part in each.items()]


def _has_place(key: Any) -> bool:
    """Return whether equal keys have equal names, unlike objects that are told apart by their identity."""
    if isinstance(key, tuple):
        return all(map(_has_place, key))
    return isinstance(key, (*NUMBERS_AND_TEXT, *NAMED))


def _name_of(value: Any) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, type) or inspect.isroutine(value):
        return ".".join(filter(None, (getattr(value, "__module__", ""), value.__qualname__)))
    return str(value)


def _near(expected: Any, actual: Any, tolerance: float) -> bool:
    """Return whether two numbers are the same NaN, or equal to a relative tolerance."""
    if not isinstance(expected, float | complex):
        return False
    same = struct.pack("2d", expected.real, expected.imag) == struct.pack("2d", actual.real, actual.imag)
    return same or cmath.isclose(expected, actual, rel_tol=tolerance)
