"""Fixtures of the requirements, and the hooks that report the finding of each case."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from inbackward_conformance import accelerator
from inbackward_conformance.adapters.declarations import Declarations
from inbackward_conformance.adapters.find import UnusableImplementation, find_implementation
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.drawn import Drawn
from inbackward_conformance.checking.profiles import QUICK, drawing
from inbackward_conformance.checking.standard_runs import StandardRuns
from inbackward_conformance.extras import missing, why_not_run
from inbackward_conformance.outcome import BrokenPromise, Finding, NotRun, Outcome
from inbackward_conformance.plugin.case import attach_case, mark_expected, mark_finding, with_script, worst_finding
from inbackward_conformance.plugin.crash_note import CrashNote
from inbackward_conformance.plugin.optimizer_cases import parametrize
from inbackward_conformance.plugin.session import CRASH_NOTE_KEY, RANKS, ConformanceSession
from inbackward_conformance.ranks.job import JobRunner
from inbackward_conformance.ranks.on_ranks import OnRanks
from inbackward_conformance.ranks.pool import Pool
from inbackward_conformance.ranks.time_limit import time_limit
from inbackward_conformance.report.expected import find_covering
from inbackward_conformance.report.record import CaseRecord
from inbackward_conformance.repro.body_script import sources_of
from inbackward_conformance.specification import DISTRIBUTED, requirement_id, specification
from inbackward_conformance.training.classify_error import classify_error, printable_errors
from inbackward_conformance.training.global_state import restored_settings
from inbackward_conformance.training.random_numbers import seed_all_random_numbers
from inbackward_conformance.versions import is_installed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

CHECK = pytest.StashKey[Check]()
CRASH_NOTE = pytest.StashKey[CrashNote]()
DRAWN = pytest.StashKey[Drawn]()
NOT_IN_TORCH = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of requirements."""
    for mark in (
        "must: a requirement that a verdict rests on",
        "should: a requirement that is reported and leaves the verdict alone",
        "may_refuse(latest): a refusal passes: 'before any change' (the default), 'at attachment' or 'late'",
        "needs(call): the optional call of an adapter that the requirement is about",
        "optimizers(argument, choices, ids, variants): a case for each of these, or for each class of an adapter's own",
        "with_extra(name): needs the libraries of this extra: without them not run, and no verdict rests on it",
        "torch(versions): about what only these have, as in '>=2.12': with others not run, and no verdict rests on it",
        "accelerator: about what torch itself has on an accelerator only: on a CPU not run, and no verdict rests on it",
    ):
        config.addinivalue_line("markers", mark)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect distributed chapters only with `--distributed`, others only without; a named file is always collected."""
    if collection_path.suffix == ".py" and _is_distributed(collection_path) != config.getoption("distributed"):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize every requirement by implementation first, and by optimizer if it has the mark `optimizers`."""
    parametrize(metafunc, list(dict.fromkeys(metafunc.config.getoption("implementation"))))


@pytest.fixture(autouse=True, scope="session")
def warm_up_torch() -> Iterator[None]:
    """Load the lazy modules of torch before the first case, and use one thread.

    One thread keeps the order of arithmetic the same when workers run in parallel.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    param = torch.zeros(1, requires_grad=True)
    param.sum().backward()
    torch.optim.SGD([param]).step()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def reset_torch(request: pytest.FixtureRequest, device: str) -> Iterator[None]:
    """Seed the random numbers and enable grad mode for each case, and restore the global settings after it."""
    with suppress(UnusableImplementation):  # its import may change settings, which it does once
        find_implementation(_implementation_and_case(request.node)[0])
    seed_all_random_numbers(request.config.getoption("conformance_seed"), device)
    with restored_settings(), torch.enable_grad():
        accelerator.make_repeatable(device)
        yield


@pytest.fixture
def implementation(request: pytest.FixtureRequest, device: str) -> Implementation:
    """Return the implementation under test, new for each case."""
    target = find_implementation(request.param)
    required = Declarations.of(target).requires_device
    if required and required != accelerator.kind_of(device):
        raise NotRun(f"it requires {required}, and the run is on {device}")
    with printable_errors():
        return Implementation(target)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Return the device to run on."""
    return str(request.config.getoption("device"))


@pytest.fixture(scope="session")
def ranks(request: pytest.FixtureRequest) -> Iterator[JobRunner]:
    """Return the ranks of distributed cases: those that were given, or a pool that starts them when needed."""
    if RANKS in request.config.stash:
        yield request.config.stash[RANKS]
        return
    pool = Pool(at_once=4)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def standard_runs(request: pytest.FixtureRequest) -> StandardRuns:
    """Return the results of the standard loop, which implementations share."""
    return StandardRuns(len(set(request.config.getoption("implementation"))))


@pytest.fixture
def check(
    request: pytest.FixtureRequest,
    implementation: Implementation,
    device: str,
    ranks: JobRunner,
    standard_runs: StandardRuns,
) -> Check:
    """Return the check of the implementation under test against the standard loop."""
    requirement = specification()[requirement_id(request.path, request.node.name)]
    if missing(requirement.extra):
        raise NotRun(why_not_run(requirement.extra))
    if not requirement.is_on(device):
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
    """Return the check of the implementation under test on plans that Hypothesis draws."""
    option, on_ranks = request.config.getoption, _is_distributed(request.path)
    settings = drawing(option("hypothesis_profile", None) or QUICK, on_ranks=on_ranks)
    limit = nullcontext if on_ranks else partial(time_limit, option("case_seconds"))
    drawn = Drawn(check, settings, option("conformance_seed"), limit)
    request.node.stash[DRAWN] = drawn
    return drawn


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Function) -> None:
    """Write the crash note of a case in a worker of xdist, and leave out what torch lacks."""
    file = getattr(item.config, "workerinput", {}).get(CRASH_NOTE_KEY)
    requirement = requirement_id(item.path, item.name)
    arguments = _arguments(item) if file else {}
    item.stash[CRASH_NOTE] = CrashNote(Path(file) if file else None, item.nodeid, requirement, arguments)
    for mark in item.iter_markers("torch"):
        if not is_installed(f"torch{mark.args[0]}"):
            item.stash[NOT_IN_TORCH] = True
            raise NotRun(f"it needs torch {mark.args[0]}, and this is torch {version('torch')}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, object, object]:
    """Limit the time of each case; for drawn plans each plan has the limit, and on ranks each job."""
    unlimited = _is_distributed(item.path) or "drawn" in item.fixturenames
    try:
        with nullcontext() if unlimited else time_limit(item.config.getoption("case_seconds")):
            return (yield)
    finally:
        _end_with_device(item)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Let pytest and its other plugins see only errors that they can print."""
    with printable_errors():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the finding of a case to the report of its phase."""
    finding = _finding(item, call)
    if finding and finding.outcome is not Outcome.ERROR:
        # A finding is one line; to format the traceback that it replaces takes longer than most cases.
        item.repr_failure = lambda *_: finding.detail  # type: ignore[method-assign]
    report = yield
    if finding is None:
        return report
    session = item.config.pluginmanager.get_plugin("inbackward_conformance_session")
    assert isinstance(session, ConformanceSession)
    requirement = specification()[requirement_id(item.path, item.name)]
    name, case = _implementation_and_case(item)
    entry = find_covering(session.expectations.get(name, []), requirement.id, finding)
    record = CaseRecord(
        name,
        requirement.id,
        case,
        requirement.level,
        finding.outcome,
        finding.passed,
        finding.detail,
        call.duration,
        bool(entry),
        drawn=item.stash[DRAWN].plans if DRAWN in item.stash else 0,
        not_in_torch=NOT_IN_TORCH in item.stash,
        **_reproduction(item, call, finding),
    )
    attach_case(report, with_script(record, item.config))
    if entry:
        mark_expected(report, finding, entry)
    else:
        mark_finding(report, finding)
    return report


def _end_with_device(item: pytest.Function) -> None:
    """End the worker if its device is lost, as if it had died in this case; without workers, end the run."""
    why = accelerator.why_lost(item.config.getoption("device"))
    if why is None:
        return
    item.stash[CRASH_NOTE].died(why)
    if hasattr(item.config, "workerinput"):
        os._exit(1)
    item.session.shouldstop = f"this process cannot use its device any more: {why} (with -n 1 it would be replaced)"
    raise BrokenPromise(Finding(Outcome.CRASHES, why, passed=False))


def _is_distributed(path: Path) -> bool:
    return path.stem.removeprefix("test_") in DISTRIBUTED


def _finding(item: pytest.Item, call: pytest.CallInfo[None]) -> Finding | None:
    """Return the finding of a phase; None for a set-up or teardown without an error."""
    if call.excinfo is None:
        return worst_finding(item.stash[CHECK].findings if CHECK in item.stash else []) if call.when == "call" else None
    return classify_error(call.excinfo.value, in_setup=call.when != "call")


def _reproduction(item: pytest.Function, call: pytest.CallInfo[None], finding: Finding) -> dict[str, Any]:
    """Return the fields of the record that reproduce a failure."""
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
    """Return the arguments of a case as source code, as far as they have any."""
    values = {key: value for key, value in item.callspec.params.items() if key != "implementation"}
    return sources_of(values, requirement_id(item.path, item.name))


def _implementation_and_case(item: pytest.Function) -> tuple[str, str]:
    """Return the name of the implementation and the id of the case."""
    name = str(item.callspec.params["implementation"])
    return name, item.callspec.id.removeprefix(name).removeprefix("-")
