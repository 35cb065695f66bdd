"""Definitions for both loops."""

from __future__ import annotations

from typing import NamedTuple


class AssignmentSource(NamedTuple):
    """The source of the arguments of `apply`, and what the standard loop needs beside it.

    Attributes:
        hook: whether the optimizer steps inside backward.
        param_names: the first name of each parameter.
        closure: whether `step` requires a closure.
    """

    optimizer_class: str
    params: str
    optimizer_kwargs: str
    hook: bool
    param_names: frozenset[str]
    closure: bool


def for_each(optimizers: str, *statements: str) -> list[str]:
    """Return a loop over a list of optimizers for each of the statements on `optimizer`."""
    return [line for statement in statements for line in (f"for optimizer in {optimizers}:", f"    {statement}")]


def loading(optimizers: str, state: str) -> list[str]:
    """Return the statements that load a list of state dicts into a list of optimizers."""
    if optimizers == "[optimizer]":
        return [f"optimizer.load_state_dict({state}[0])"]
    return [f"for optimizer, state in zip({optimizers}, {state}, strict=True):", "    optimizer.load_state_dict(state)"]
