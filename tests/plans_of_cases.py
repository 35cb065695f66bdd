"""A pytest plugin that keeps the plans of the first case of each requirement in a file, and runs none of them.

python -m pytest -p plans_of_cases --plans-of-cases FILE --pyargs inbackward_conformance --implementation NAME
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inbackward_conformance.outcome import CONFORMS
from inbackward_conformance.specification import requirement_id

if TYPE_CHECKING:
    from inbackward_conformance.plan import Plan

PLANS = pytest.StashKey[list[tuple[str, str]]]()


class NoPlan(Exception):
    """The requirement does something else than to run a plan."""


class Recorder:
    """Stands for `Check`: keeps the plans that a requirement calls it with."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.findings = [CONFORMS]

    def __call__(self, plan: Plan, *, standard_may_raise: bool = False) -> None:
        self.plans.append(plan)

    def __getattr__(self, name: str) -> object:
        raise NoPlan(name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plans-of-cases", type=Path)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PLANS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {requirement_id(item.path, item.name): item for item in reversed(items)}
    items[:] = [item for item in items if item in first.values()]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    recorder = Recorder()
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    if "check" in arguments and "drawn" not in arguments:
        try:
            pyfuncitem.obj(**{**arguments, "check": recorder})
        except NoPlan:
            recorder.plans.clear()
        requirement = requirement_id(pyfuncitem.path, pyfuncitem.name)
        pyfuncitem.config.stash[PLANS] += [(requirement, repr(plan)) for plan in recorder.plans]
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path = session.config.getoption("plans_of_cases")
    path.write_text(json.dumps(session.config.stash[PLANS]), encoding="utf-8")
