"""The mark `optimizers`: a case of a requirement for each of several optimizers.

An implementation that takes any class has a case for each that the mark names. One with classes of its own has a case
for each of these instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.adapters.declarations import Declarations
from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.plan.assignment import Assignment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inbackward_conformance.adapters.declarations import OwnOptimizer
    from inbackward_conformance.plan.need import Need

Choice = Assignment | tuple[Assignment, ...]


def optimizers(
    argument: str, choices: Sequence[Choice], *, ids: Sequence[str] = (), variants: bool = False
) -> pytest.MarkDecorator:
    """Return a mark that parametrizes a requirement by one or several optimizers.

    Args:
        argument: the name of the argument.
        choices: the values of the argument, all of them single assignments, or all of them tuples.
        ids: the ids of the cases; by default the names of the classes.
        variants: whether there is a case for each variant that an adapter declares, too.
    """
    return pytest.mark.optimizers(argument, choices, ids or list(map(_id, choices)), variants)


def parametrize(metafunc: pytest.Metafunc, implementations: Sequence[str]) -> None:
    """Parametrize a requirement by implementation and, if it has the mark, by optimizer."""
    mark = metafunc.definition.get_closest_marker("optimizers")
    if mark is None:
        metafunc.parametrize("implementation", implementations, indirect=True)
        return
    argument, choices, ids, variants = mark.args
    cases = [
        pytest.param(name, choice, id=f"{name}-{case}")
        for name in implementations
        for choice, case in _cases(name, choices, ids, variants=variants)
    ]
    metafunc.parametrize(("implementation", argument), cases, indirect=["implementation"])


def _cases(name: str, choices: Sequence[Choice], ids: Sequence[str], *, variants: bool) -> Iterator[tuple[Choice, str]]:
    own = Declarations.of(find_implementation(name)).own_optimizers
    if not own:
        yield from zip(choices, ids, strict=True)
    elif isinstance(choices[0], Assignment):
        for entry in own:
            for number, options in enumerate(entry.configurations if variants else entry.configurations[:1]):
                variant = entry.variants[number - 1] if number else {}
                yield replace(choices[0], optimizer=entry.name, options=options), _id_of(entry, variant)
    else:
        for choice in {_needs(choice): choice for choice in reversed(choices)}.values():
            yield choice, "-".join(need.relation.name.lower().replace("_", "-") for need in _needs(choice))


def _needs(choice: Choice) -> tuple[Need, ...]:
    return tuple(one.need for one in (choice if isinstance(choice, tuple) else (choice,)))


def _id(choice: Choice) -> str:
    return "-".join(one.optimizer for one in (choice if isinstance(choice, tuple) else (choice,)))


def _id_of(entry: OwnOptimizer, variant: Mapping[str, Any]) -> str:
    return "-".join([entry.label, *(f"{key}={value}" for key, value in variant.items())])
