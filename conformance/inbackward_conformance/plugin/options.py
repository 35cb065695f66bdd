"""The command-line options, and the registration of the session."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inbackward_conformance.adapters.find import UnusableImplementation, version_of
from inbackward_conformance.plugin.progress import Progress, is_wanted
from inbackward_conformance.plugin.select import BadSelection, Selection, read_selection
from inbackward_conformance.plugin.session import ConformanceSession
from inbackward_conformance.report.expectations_file import BadExpectations
from inbackward_conformance.report.expected import load_expectations

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGE = Path(__file__).parent.parent
MAX_SEED = 10**6
"""Seeds of batches are made of it and of the rank, and have to fit into 64 bits."""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """Add the options if pytest runs the suite."""
    if not _include_suite(args):
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
    group.addoption(
        "--device", default="cpu", metavar="DEVICE", help="device to run on, cpu (default) or cuda, for example"
    )
    group.addoption(
        "--conformance-seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of models, batches and plans that are drawn (default 0)",
    )
    group.addoption(
        "--distributed", action="store_true", help="run the chapters that need several processes, and only those"
    )
    group.addoption(
        "--case-seconds", type=_positive_seconds, default=60.0, metavar="S", help="time limit of one case (default 60)"
    )


@pytest.hookimpl(tryfirst=True)  # Hypothesis's own plugin looks the profile up
def pytest_configure(config: pytest.Config) -> None:
    """Register a conformance session if pytest runs the suite.

    Raises:
        pytest.UsageError: if an option cannot be used; the message is one line with the remedy.
    """
    names = list(dict.fromkeys(config.getoption("implementation", None) or []))
    if not names:
        if _include_suite(config.args):
            raise pytest.UsageError(
                "name what is to be tested: --implementation NAME or --implementation package.module:attribute"
            )
        return
    if profile := config.getoption("hypothesis_profile", None):
        from inbackward_conformance.checking.profiles import PROFILES, is_registered  # noqa: PLC0415 (needs Hypothesis)

        if not is_registered(profile):
            raise pytest.UsageError(f"--hypothesis-profile {profile}: no such profile; choose {', '.join(PROFILES)}")
    try:
        if not hasattr(config, "workerinput"):
            for name in names:
                version_of(name)  # raises if the name cannot be used
            _check_device(config.getoption("device"))
            _check_folder(config.getoption("conformance_repro"))
        expectations = load_expectations(names, config.getoption("expected"), config.getoption("device"))
        path = config.getoption("conformance_select")
        selected = read_selection(path, names) if path else None
    except (UnusableImplementation, BadExpectations, BadSelection) as error:
        raise pytest.UsageError(str(error)) from error
    if selected is not None:
        config.pluginmanager.register(Selection(selected))
    config.pluginmanager.register(ConformanceSession(config, names, expectations), "inbackward_conformance_session")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Show the progress of a conformance session to whoever looks at a terminal.

    When `pytest_configure` runs, there is no terminal reporter yet.
    """
    plugins = session.config.pluginmanager
    reporter = plugins.get_plugin("terminalreporter")
    if reporter and plugins.has_plugin("inbackward_conformance_session") and is_wanted(reporter):
        plugins.register(Progress(reporter))


def _include_suite(arguments: Iterable[str]) -> bool:
    """Return whether an argument names the suite, as a package or a path."""
    names = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return any(name.partition(".")[0] == PACKAGE.name or Path(name).resolve().is_relative_to(PACKAGE) for name in names)


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    from inbackward_conformance import accelerator  # noqa: PLC0415 (it loads torch: on a CPU only the workers need it)

    if why := accelerator.why_unusable(device):
        raise pytest.UsageError(f"--device {device}: torch cannot use it here ({why}); use --device cpu")
    accelerator.set_up_process(device)


def _check_folder(folder: Path | None) -> None:
    if folder and folder.exists() and not folder.is_dir():
        raise pytest.UsageError(f"--conformance-repro {folder}: it is a file; name a folder")


def _seed(text: str) -> int:
    """Return a seed; argparse prints the message of the error."""
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a number from 0 to {MAX_SEED}")
    return int(text)


def _positive_seconds(text: str) -> float:
    """Return a time limit; argparse prints the message of the error."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time limit; give seconds, such as 60")
    return seconds
