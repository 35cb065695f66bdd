"""The options of the suite, and the session that is registered where pytest is pointed at it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inbackward_conformance.adapters.find import UnusableImplementation, version_of
from inbackward_conformance.plugin.select import BadSelection, Selection, read_selection
from inbackward_conformance.plugin.session import ConformanceSession
from inbackward_conformance.report.expected import BadExpectations, load_expectations

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGE = Path(__file__).parent.parent
CLUSTER = pytest.StashKey[Any]()
"""`Ranks` that something else has started, and that this run is to use."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Add the options of the suite, if it is what pytest is pointed at."""
    if not _name_the_suite(args):
        return
    group = parser.getgroup("inbackward", "conformance of optimizer in backward")
    group.addoption(
        "--implementation",
        action="append",
        default=[],
        metavar="NAME",
        help="implementation to test: a registered name, package.module:attribute or package.module; repeatable",
    )
    group.addoption(
        "--conformance-report", type=Path, metavar="FILE.jsonl", help="write the record of the run as JSON Lines"
    )
    group.addoption(
        "--conformance-repro",
        type=Path,
        metavar="DIR",
        help="write a script for every case that fails: torch and the implementation's own calls alone",
    )
    group.addoption(
        "--expected",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.toml",
        help="expected failures of one implementation, in place of those that the suite ships; repeatable",
    )
    group.addoption(
        "--conformance-select",
        type=Path,
        metavar="FILE.json",
        help="run only these cases: JSON of implementation, requirement and a list of cases, of which '' is the first",
    )
    group.addoption("--device", default="cpu", metavar="DEVICE", help="device to run on, cpu (default) or cuda")
    group.addoption(
        "--conformance-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of models, batches and plans that are drawn (default 0)",
    )
    group.addoption(
        "--distributed", action="store_true", help="run the chapters that need several processes, and only those"
    )
    group.addoption(
        "--case-seconds", type=_seconds, default=60.0, metavar="S", help="time limit of one case (default 60)"
    )


@pytest.hookimpl(tryfirst=True)  # Hypothesis's own plugin looks the profile up
def pytest_configure(config: pytest.Config) -> None:
    """Start a conformance session, if pytest is pointed at the suite.

    Raises:
        pytest.UsageError: an option cannot be used; one line that names the remedy.
    """
    names = list(dict.fromkeys(config.getoption("implementation", None) or []))
    if not names:
        if _name_the_suite(config.args):
            raise pytest.UsageError(
                "name what is to be tested: --implementation NAME or --implementation package.module:attribute"
            )
        return
    if config.getoption("hypothesis_profile", None):
        import inbackward_conformance.checking.profiles  # noqa: F401, PLC0415 (registers them; who chooses none waits for nothing)
    try:
        if not hasattr(config, "workerinput"):
            for name in names:
                version_of(name)  # and all that can be wrong with a name
            _check_device(config.getoption("device"))
        expectations = load_expectations(names, config.getoption("expected"), config.getoption("device"))
        chosen = config.getoption("conformance_select")
        selected = read_selection(chosen) if chosen else None
    except (UnusableImplementation, BadExpectations, BadSelection) as error:
        raise pytest.UsageError(str(error)) from error
    if selected is not None:
        config.pluginmanager.register(Selection(selected))
    config.pluginmanager.register(ConformanceSession(config, names, expectations), "inbackward_conformance_session")


def _name_the_suite(arguments: Iterable[str]) -> bool:
    """Whether one of the arguments is the suite, as a package or as a path."""
    named = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return any(name.partition(".")[0] == PACKAGE.name or Path(name).resolve().is_relative_to(PACKAGE) for name in named)


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch  # noqa: PLC0415 (a run on the CPU leaves it to the workers)

    try:
        torch.zeros((), device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise pytest.UsageError(f"--device {device}: torch cannot use it here ({reason}); use --device cpu") from error


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text} is no time limit")
    return seconds
