"""Fixtures of the requirements, and the hooks that make a finding of each case.

Everything here applies to the tests of this folder alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from inbackward_conformance.adapters.find import find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.drawn import Drawn
from inbackward_conformance.checking.profiles import QUICK, drawing
from inbackward_conformance.checking.standard_runs import StandardRuns
from inbackward_conformance.outcome import BrokenPromise, Finding, NotRun, Outcome
from inbackward_conformance.plugin.case import attach_case, count_as, excuse, with_script, worst
from inbackward_conformance.plugin.crash_note import CrashNote
from inbackward_conformance.plugin.options import CLUSTER
from inbackward_conformance.plugin.session import NOTES_OF_WORKER, ConformanceSession
from inbackward_conformance.ranks.job import JobRunner
from inbackward_conformance.ranks.on_ranks import OnRanks
from inbackward_conformance.ranks.pool import Pool
from inbackward_conformance.ranks.time_limit import time_limit
from inbackward_conformance.report.expected import covering
from inbackward_conformance.report.record import CaseRecord
from inbackward_conformance.repro.body_script import sources_of
from inbackward_conformance.specification import DISTRIBUTED, requirement_id, specification
from inbackward_conformance.training.classify_error import classify_error
from inbackward_conformance.training.random_numbers import seed_random_numbers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

CHECK = pytest.StashKey[Check]()
CRASH_NOTE = pytest.StashKey[CrashNote]()
DRAWN = pytest.StashKey[Drawn]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks of requirements."""
    for mark in (
        "must: a requirement that a verdict rests on",
        "should: a requirement that is reported and leaves the verdict alone",
        "may_refuse(latest): a refusal passes: 'before any change' (the default), 'at attachment' or 'late'",
        "needs(call): the optional call of an adapter that the requirement is about",
        "accelerator: about what torch itself has on an accelerator only: on a CPU not run, and no verdict rests on it",
    ):
        config.addinivalue_line("markers", mark)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Run the chapters that need ranks with `--distributed`, the others without; a file that is named runs anyway."""
    if collection_path.suffix == ".py" and _is_distributed(collection_path) != config.getoption("distributed"):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make the implementations the first axis of every requirement."""
    names = metafunc.config.getoption("implementation")
    metafunc.parametrize("implementation", list(dict.fromkeys(names)), indirect=True)


@pytest.fixture(autouse=True, scope="session")
def warm_torch() -> Iterator[None]:
    """Keep to one thread, and have loaded what torch loads late, so that no case pays for it.

    Workers run side by side, and with one thread the order of arithmetic stays what it is.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    param = torch.zeros(1, requires_grad=True)
    param.sum().backward()
    torch.optim.SGD([param]).step()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_start(request: pytest.FixtureRequest, device: str) -> Iterator[None]:
    """Begin each case with grad mode on and the same random numbers, whatever the one before has left behind."""
    seed_random_numbers(request.config.getoption("conformance_seed"), device)
    with torch.enable_grad():
        yield


@pytest.fixture
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """The implementation under test, new for each case."""
    return Implementation(find_implementation(request.param))


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device to run on."""
    return str(request.config.getoption("device"))


@pytest.fixture(scope="session")
def ranks(request: pytest.FixtureRequest) -> Iterator[JobRunner]:
    """The processes of distributed cases: those of a cluster, or a pool, which starts them when they are needed."""
    if CLUSTER in request.config.stash:
        yield request.config.stash[CLUSTER]
        return
    pool = Pool(at_once=4)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def standard_runs(request: pytest.FixtureRequest) -> StandardRuns:
    """What the standard loop leaves, which is the same for all implementations."""
    return StandardRuns(len(set(request.config.getoption("implementation"))))


@pytest.fixture
def check(
    request: pytest.FixtureRequest,
    implementation: Implementation,
    device: str,
    ranks: JobRunner,
    standard_runs: StandardRuns,
) -> Check:
    """Holds the implementation under test to a plan."""
    requirement = specification()[requirement_id(request.path, request.node.name)]
    if not requirement.applies_to(device):
        raise NotRun(f"torch itself has this on an accelerator only, and the run is on {device}")
    option = request.config.getoption
    on_ranks = OnRanks(ranks, request.node.callspec.params["implementation"], device, option("case_seconds"))
    about_to_run = request.node.stash[CRASH_NOTE].about_to_run
    check = Check(
        implementation,
        requirement,
        device,
        option("conformance_seed"),
        ranks=on_ranks,
        standard_runs=standard_runs,
        about_to_run=about_to_run,
    )
    request.node.stash[CHECK] = check
    return check


@pytest.fixture
def drawn(request: pytest.FixtureRequest, check: Check) -> Drawn:
    """Holds the implementation under test to plans that Hypothesis draws."""
    option, on_ranks = request.config.getoption, _is_distributed(request.path)
    settings = drawing(option("hypothesis_profile", None) or QUICK, on_ranks=on_ranks)
    limit = nullcontext if on_ranks else partial(time_limit, option("case_seconds"))
    drawn = Drawn(check, settings, option("conformance_seed"), limit)
    request.node.stash[DRAWN] = drawn
    return drawn


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Function) -> None:
    """Say which case is next, where somebody listens: the controller of xdist."""
    file = getattr(item.config, "workerinput", {}).get(NOTES_OF_WORKER)
    requirement = requirement_id(item.path, item.name)
    arguments = _arguments(item) if file else {}
    item.stash[CRASH_NOTE] = CrashNote(Path(file) if file else None, item.nodeid, requirement, arguments)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, object, object]:
    """Limit the time of each case; where plans are drawn each plan is limited, and on ranks each job."""
    if _is_distributed(item.path) or "drawn" in item.fixturenames:
        return (yield)
    with time_limit(item.config.getoption("case_seconds")):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Judge what a phase of a case came to, and put it on the report."""
    report = yield
    finding = _judge(item, call)
    if finding is None:
        return report
    session = item.config.pluginmanager.get_plugin("inbackward_conformance_session")
    assert isinstance(session, ConformanceSession)
    found = specification()[requirement_id(item.path, item.name)]
    name, case = _names(item)
    entry = covering(session.expectations.get(name, []), found.id, finding)
    came_to = CaseRecord(
        name,
        found.id,
        case,
        found.level,
        finding.outcome,
        finding.passed,
        finding.detail,
        call.duration,
        bool(entry),
        drawn=item.stash[DRAWN].plans if DRAWN in item.stash else 0,
        **_reproduction(item, call, finding),
    )
    attach_case(report, with_script(came_to, item.config))
    if entry:
        excuse(report, finding, entry)
    else:
        count_as(report, finding)
    return report


def _is_distributed(path: Path) -> bool:
    return path.stem.removeprefix("test_") in DISTRIBUTED


def _judge(item: pytest.Item, call: pytest.CallInfo[None]) -> Finding | None:
    """Return the finding of a phase; None where the phase decides nothing."""
    if call.excinfo is None:
        return worst(item.stash[CHECK].findings if CHECK in item.stash else []) if call.when == "call" else None
    return classify_error(call.excinfo.value, in_setup=call.when != "call")


def _reproduction(item: pytest.Function, call: pytest.CallInfo[None], finding: Finding) -> dict[str, Any]:
    """Return what the record holds of a failure beside the finding."""
    if finding.passed or finding.outcome is Outcome.ERROR:
        return {}
    error = call.excinfo.value if call.excinfo else None
    plan = error.plan if isinstance(error, BrokenPromise) and error.plan else None
    if plan is None and CHECK in item.stash:
        plan = item.stash[CHECK].plan
    if plan is None:
        return {"arguments": _arguments(item)}
    return {"plan": repr(plan), "difference": finding.difference}


def _arguments(item: pytest.Function) -> dict[str, str]:
    """Return the values of a case as source, as far as they have one."""
    given = {key: value for key, value in item.callspec.params.items() if key != "implementation"}
    return sources_of(given, requirement_id(item.path, item.name))


def _names(item: pytest.Function) -> tuple[str, str]:
    """Return the implementation's name and the id of the case."""
    name = str(item.callspec.params["implementation"])
    return name, item.callspec.id.removeprefix(name).removeprefix("-")
