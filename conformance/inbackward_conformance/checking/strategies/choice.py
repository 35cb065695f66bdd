"""Draws one or several of a few choices; a failure shrinks to the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Draw = Callable[[st.SearchStrategy[Any]], Any]
    """`draw` of a composite strategy, or `data.draw` of a rule."""

T = TypeVar("T")


def one(draw: Draw, choices: Sequence[T]) -> T:
    """Draw one of the choices."""
    return choices[draw(st.integers(0, len(choices) - 1))]


def some(draw: Draw, choices: Sequence[T]) -> tuple[T, ...]:
    """Draw any number of the choices, in order."""
    return tuple(choice for choice in choices if draw(st.booleans()))


def at_least_one(draw: Draw, choices: Sequence[T]) -> tuple[T, ...]:
    """Draw one or more of the choices, in any order."""
    left = list(choices)
    return tuple(left.pop(draw(st.integers(0, len(left) - 1))) for _ in range(draw(st.integers(1, len(left)))))


def shuffled(draw: Draw, choices: Sequence[T]) -> tuple[T, ...]:
    """Draw a permutation of the choices."""
    left = list(choices)
    return tuple(left.pop(draw(st.integers(0, len(left) - 1))) for _ in range(len(left)))
