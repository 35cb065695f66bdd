"""What both loops are made of."""

from __future__ import annotations

from typing import NamedTuple


class AssignmentSource(NamedTuple):
    """The arguments of `apply` as source, and what the standard loop has to know of them.

    Attributes:
        hook: whether the optimizer steps inside backward.
        held: the names of the parameters, a shared one under its first.
        closure: whether `step` needs one.
    """

    optimizer_class: str
    params: str
    optimizer_kwargs: str
    hook: bool
    held: frozenset[str]
    closure: bool


def loading(optimizers: str, state: str) -> list[str]:
    """Return what loads a list of states into a list of optimizers."""
    return [f"for optimizer, state in zip({optimizers}, {state}):", "    optimizer.load_state_dict(state)"]
