"""Which mutants there are, and what each is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Mutant:
    """One broken implementation, `--implementation NAME`, and the requirement that has to catch it."""

    name: str
    requirement: str
    case: str


MUTANTS: list[Mutant] = []


def fails(requirement: str, case: str = "") -> Callable[[type], type]:
    """Register a class as a mutant that `requirement` catches, best in `case` (by default its first)."""

    def register(cls: type) -> type:
        MUTANTS.append(Mutant(f"{cls.__module__}:{cls.__name__}", requirement, case))
        return cls

    return register
