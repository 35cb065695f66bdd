"""The pytest plugin: options, and the session that records. Imports neither torch nor hypothesis.

Without `--implementation` it registers its options and does nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inbackward_conformance.adapter import UnusableImplementation, find_implementation
from inbackward_conformance.expected import BadExpectations, load_expectations
from inbackward_conformance.session import ConformanceSession

PACKAGE = Path(__file__).parent
CLUSTER = pytest.StashKey[Any]()
"""`Ranks` that something else has started, and that this run is to use."""
NOTHING_NAMED = "name what is to be tested: --implementation NAME or --implementation package.module:attribute"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("inbackward", "conformance of optimizer in backward")
    group.addoption(
        "--implementation",
        action="append",
        default=[],
        metavar="NAME",
        help="implementation to test: a registered name or package.module:attribute; repeatable",
    )
    group.addoption(
        "--conformance-report", type=Path, metavar="FILE.jsonl", help="write the record of the run as JSON Lines"
    )
    group.addoption(
        "--expected",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.toml",
        help="expected failures of one implementation, in place of those that the suite ships; repeatable",
    )
    group.addoption("--device", default="cpu", metavar="DEVICE", help="device to run on, cpu (default) or cuda")
    group.addoption(
        "--conformance-seed", type=int, default=0, metavar="N", help="seed of models and batches (default 0)"
    )
    group.addoption(
        "--distributed", action="store_true", help="run the chapters that need several processes, and only those"
    )
    group.addoption("--case-seconds", type=float, default=60.0, metavar="S", help="time limit of one case (default 60)")


def pytest_configure(config: pytest.Config) -> None:
    """Start a conformance session, if implementations are named and can be found."""
    names = list(dict.fromkeys(config.getoption("implementation")))
    if not names:
        if _asks_for_requirements(config):
            raise pytest.UsageError(NOTHING_NAMED)
        return
    try:
        if not hasattr(config, "workerinput"):
            for name in names:
                find_implementation(name)
        expectations = load_expectations(names, config.getoption("expected"))
    except (UnusableImplementation, BadExpectations) as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(ConformanceSession(config, names, expectations), "inbackward_conformance_session")


def _asks_for_requirements(config: pytest.Config) -> bool:
    """Whether an argument of the command line is the suite, as a package or as a path."""
    named = [argument.partition("::")[0] for argument in config.args]
    if config.option.pyargs and any(name.partition(".")[0] == PACKAGE.name for name in named):
        return True
    return any(Path(name).resolve().is_relative_to(PACKAGE) for name in named)
