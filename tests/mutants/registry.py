"""Which mutants there are, and what each is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Mutant:
    """One broken implementation, `--implementation NAME`, and the requirement that has to catch it.

    Attributes:
        case: the one that shows it best; empty: the first.
        made_from: the name of the base that it departs from; empty for a base that is broken itself.
        only_drawn: whether no requirement but those of drawn plans can see it.
        by_rounding: requirements that it departs from by roundings alone, which depend on the machine.
    """

    name: str
    requirement: str
    case: str
    made_from: str
    only_drawn: bool
    by_rounding: tuple[str, ...]

    @property
    def chapter(self) -> str:
        """The chapter of its requirement."""
        return self.requirement.partition("/")[0]


MUTANTS: list[Mutant] = []
_BASES: set[str] = set()


def base(cls: type) -> type:
    """Register a class that mutants are made from: what it keeps, they are caught by."""
    _BASES.add(_name_of(cls))
    return cls


def fails(
    requirement: str, case: str = "", *, only_drawn: bool = False, by_rounding: tuple[str, ...] = ()
) -> Callable[[type], type]:
    """Register a class as a mutant that `requirement` catches, best in `case` (by default its first)."""

    def register(cls: type) -> type:
        name = _name_of(cls)
        made_from = next(above for above in map(_name_of, cls.__mro__) if above in _BASES)
        made_from = "" if made_from == name else made_from
        MUTANTS.append(Mutant(name, requirement, case, made_from, only_drawn, by_rounding))
        return cls

    return register


def chapters() -> dict[str, set[str]]:
    """Return the chapters that each mutant is for, and for a base those of all that are made from it."""
    found: dict[str, set[str]] = {}
    for mutant in MUTANTS:
        for name in filter(None, (mutant.name, mutant.made_from)):
            found.setdefault(name, set()).add(mutant.chapter)
    return found


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__name__}"
