"""A pytest plugin that runs, of the suite, one case of each requirement: for mutants, that see all there is to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance import check
from inbackward_conformance.run import run
from inbackward_conformance.specification import DISTRIBUTED, requirement_id
from inbackward_conformance.standard_loop import StandardLoop
from mutants import MUTANTS

if TYPE_CHECKING:
    from collections.abc import Generator

    from inbackward_conformance.plan import Plan
    from inbackward_conformance.run import Method
    from inbackward_conformance.trace import Trace

SLOW = frozenset({"equivalence/long_run", "hazards/compile", "lifetime/rounds"})
"""Half of the time would be theirs: only mutants that are for them run them."""

DRAWN = "properties"
"""Plans that are drawn until one fails find nearly every mutant, and take as long: only mutants for it run it."""

_NAMED = {(mutant.name, mutant.requirement): mutant.case for mutant in MUTANTS}
_CHAPTERS = {
    name: {mutant.requirement.partition("/")[0] for mutant in MUTANTS if mutant.name == name} for name, _ in _NAMED
}


def pytest_configure() -> None:
    """Run the standard loop once for each plan, not once for each mutant: its trace is the same for all."""
    traces: dict[str, Trace] = {}

    def run_or_remember(plan: Plan, method: Method, device: str = "cpu", rank: int = 0) -> Trace:
        if not isinstance(method, StandardLoop):
            return run(plan, method, device, rank)
        if (key := repr(plan)) not in traces:
            traces[key] = run(plan, method, device, rank)
        return traces[key]

    check.run = run_or_remember  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Make one case for each mutant, and none of the hundred others: making them all would take longer than running.

    pytest has no public way to leave a parametrization out before it is made.
    """
    result = yield
    requirement = requirement_id(str(metafunc.definition.path), metafunc.function.__name__)
    chosen: dict[str, Any] = {}
    for call in metafunc._calls:
        name = str(call.params["implementation"])
        case = call.id.removeprefix(name).removeprefix("-")
        if case_for(name, requirement) in {"", case}:
            chosen.setdefault(name, call)
    metafunc._calls[:] = [call for name, call in chosen.items() if is_for(name, requirement)]
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop what has no implementation left: pytest makes one test of a parametrization that is empty."""
    items[:] = [item for item in items if hasattr(item, "callspec")]


def case_for(name: str, requirement: str) -> str:
    """Return the case that shows best what a mutant does: its own, or that of the first mutant of the requirement."""
    others = (mutant.case for mutant in MUTANTS if mutant.requirement == requirement)
    return _NAMED.get((name, requirement), next(others, ""))


def is_for(name: str, requirement: str) -> bool:
    """Whether a mutant runs a requirement: on ranks, those of its own chapter alone."""
    chapter = requirement.partition("/")[0]
    if (name, requirement) in _NAMED:
        return True
    if chapter in DISTRIBUTED:
        return chapter in _CHAPTERS[name]
    return requirement not in SLOW and chapter != DRAWN and not _CHAPTERS[name] <= DISTRIBUTED
