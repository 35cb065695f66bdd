"""A pytest plugin that runs, of the suite, one case of each requirement: for mutants, that see all there is to see."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.checking import check
from inbackward_conformance.ranks.on_ranks import OnRanks, run_both, run_observed
from inbackward_conformance.specification import DISTRIBUTED, requirement_id
from inbackward_conformance.training.standard_loop import StandardLoop
from inbackward_conformance.training.train import train
from mutants import MUTANTS, chapters

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from inbackward_conformance.plan.plan import Plan
    from inbackward_conformance.training.run import Method
    from inbackward_conformance.training.trace import Trace

APART = DISTRIBUTED | {"functional"}
"""Chapters of calls that the others do not make: their mutants train them alone, and no other mutant does."""

SLOW = {
    "ddp/early_step",
    "equivalence/long_run",
    "fsdp/checkpoint",
    "fsdp/checkpoint_of_original_parameters",
    "fsdp/early_step",
    "functional/compile",
    "functional/compile_by_inductor",
    "hazards/compile",
    "lifetime/rounds",
}
"""Half of the time would be theirs: only mutants that are for them train them."""

BY_CHANCE = {"hazards/two_threads"}
"""What others come to there depends on which thread comes first: again, only mutants that are for it train it."""

DRAWN = "properties"
"""Plans that are drawn until one fails find nearly every mutant, and take as long: only mutants for it train it."""

_CASES: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
"""By requirement: the cases of each mutant that is for it, and for a base those of all that are made from it."""

_CHAPTERS = chapters()

for mutant in MUTANTS:
    for name in filter(None, (mutant.name, mutant.made_from)):
        _CASES[mutant.requirement][name].append(mutant.case)


_STANDARD: dict[str, Trace] = {}
"""What the standard loop leaves, by plan: the same for all mutants, so it runs once."""

_STANDARD_ON_RANKS: dict[str, list[Trace]] = {}

_call_on_ranks = OnRanks.call


def pytest_configure() -> None:
    """Remember what the standard loop leaves, in this process: ranks may be replaced one by one, and forget."""
    check.run = run_or_remember  # type: ignore[attr-defined]
    OnRanks.call = call_or_remember  # type: ignore[method-assign,assignment]


def run_or_remember(plan: Plan, method: Method, device: str = "cpu", rank: int = 0) -> Trace:
    """Stand in for `train`."""
    if not isinstance(method, StandardLoop):
        return train(plan, method, device, rank)
    if (key := repr(plan)) not in _STANDARD:
        _STANDARD[key] = train(plan, method, device, rank)
    return _STANDARD[key]


def call_or_remember(ranks: OnRanks, world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Stand in for `OnRanks.call`: of a plan by both ways, send ranks the second alone where the first is known."""
    if function is not run_both:
        return _call_on_ranks(ranks, world_size, function, *arguments)
    if (key := repr(arguments)) in _STANDARD_ON_RANKS:
        observed = _call_on_ranks(ranks, world_size, run_observed, *arguments)
        return list(zip(_STANDARD_ON_RANKS[key], observed, strict=True))
    both = _call_on_ranks(ranks, world_size, function, *arguments)
    standard = [trace for trace, _ in both]
    if not any(trace.raised for trace in standard):  # where it raises, there is no second half yet
        _STANDARD_ON_RANKS[key] = standard
    return both


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Make one case for each mutant, and none of the hundred others: making them all would take longer than running.

    pytest has no public way to leave a parametrization out before it is made.
    """
    result = yield
    requirement = requirement_id(str(metafunc.definition.path), metafunc.function.__name__)
    chosen: dict[tuple[str, str], Any] = {}
    for call in metafunc._calls:
        name = str(call.params["implementation"])
        case = call.id.removeprefix(name).removeprefix("-")
        for wanted in cases_for(name, requirement):
            if wanted in {"", case}:
                chosen.setdefault((name, wanted), call)
    metafunc._calls[:] = {id(call): call for call in chosen.values()}.values()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop what has no implementation left: pytest makes one test of a parametrization that is empty."""
    items[:] = [item for item in items if hasattr(item, "callspec")]


def cases_for(name: str, requirement: str) -> list[str]:
    """Return the cases that show best what a mutant does, or none where the requirement is not for it to train."""
    cases = _CASES[requirement]
    if name in cases:
        return cases[name]
    chapter = requirement.partition("/")[0]
    its_affair = chapter in _CHAPTERS[name] if chapter in APART else not _CHAPTERS[name] <= APART
    if not its_affair or requirement in SLOW | BY_CHANCE or chapter == DRAWN:
        return []
    return next(iter(cases.values()), [""])[:1]
