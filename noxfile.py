"""The project's sessions: `nox -l` lists them, `nox -s NAME` runs one, CI calls nothing else.

All but `wheel` share one environment, which the session `dev-…` makes: torch is installed once.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "conformance", "distributed"]

ROOT = Path(__file__).parent
DEFAULT_CONSTRAINTS = "ci/constraints-torch-2.13.0.txt"
CONSTRAINTS = ROOT / (os.environ.get("INBACKWARD_CONSTRAINTS") or DEFAULT_CONSTRAINTS)

# An environment for each Python and each set of constraints, so that neither spoils the other.
DEV = f"dev-{sys.version_info.major}.{sys.version_info.minor}"
if CONSTRAINTS != ROOT / DEFAULT_CONSTRAINTS:
    DEV += "-" + CONSTRAINTS.stem.removeprefix("constraints-")

FROM_SITE_PACKAGES = """
import importlib.util, pathlib, sysconfig
for name in ("inbackward", "inbackward_conformance"):
    folder = pathlib.Path(importlib.util.find_spec(name).origin).parent
    assert folder.parent.samefile(sysconfig.get_path("purelib")), f"{name} is imported from {folder}"
    assert (folder / "py.typed").is_file(), f"{name} has no py.typed"
"""


def run_in_dev(session: nox.Session, module: str, *args: str) -> None:
    """Run `python -m module` in the shared environment, as if it were activated."""
    bin_dir = note_of_dev(session).read_text(encoding="utf-8")
    env = {
        "PATH": os.pathsep.join([bin_dir, os.environ.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(Path(bin_dir).parent),
    }
    session.run(str(Path(bin_dir, "python")), "-m", module, *args, env=env, external=True)


def note_of_dev(session: nox.Session) -> Path:
    """Name the file that says where the shared environment lies: nox shortens long paths, so no one can guess."""
    return session.cache_dir / f"{DEV}.txt"


def suite_arguments(report: Path, posargs: list[str]) -> list[str]:
    """Say how pytest runs the suite: both of our implementations, unless the caller names others."""
    args = ["--pyargs", "inbackward_conformance", "-p", "no:randomly", "-n", "2"]
    given = {arg.partition("=")[0] for arg in posargs}
    if "--implementation" not in given:
        args += ["--implementation", "reference", "--implementation", "torch"]
    if "--conformance-report" not in given:
        report.parent.mkdir(parents=True, exist_ok=True)
        args += ["--conformance-report", str(report)]
    return [*args, *posargs]


@nox.session(name=DEV, venv_backend="virtualenv", reuse_venv=True, default=False)
def dev(session: nox.Session) -> None:
    """Make the shared environment: this project, editable, and its development tools."""
    tools = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "dev")
    session.install("-c", str(CONSTRAINTS), "-e", ".[conformance]", *tools)
    note_of_dev(session).write_text(session.bin, encoding="utf-8")


@nox.session(venv_backend="none", requires=[DEV])
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    run_in_dev(session, "ruff", "check")
    run_in_dev(session, "ruff", "format", "--check")


@nox.session(venv_backend="none", requires=[DEV])
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    run_in_dev(session, "mypy")


@nox.session(venv_backend="none", requires=[DEV])
def tests(session: nox.Session) -> None:
    """Run the project's own tests, in random order; what follows `--` goes to pytest."""
    run_in_dev(session, "pytest", "-n", "2", "--dist", "loadgroup", *session.posargs)


@nox.session(venv_backend="none", requires=[DEV])
def conformance(session: nox.Session) -> None:
    """Run the suite; what follows `--` goes to pytest (`--implementation`, `--device`, `-k`, ...)."""
    run_in_dev(session, "pytest", *suite_arguments(ROOT / "build" / "conformance.jsonl", session.posargs))


@nox.session(venv_backend="none", requires=[DEV])
def distributed(session: nox.Session) -> None:
    """Run the chapters of the suite that need several processes; what follows `--` goes to pytest."""
    arguments = suite_arguments(ROOT / "build" / "distributed.jsonl", session.posargs)
    run_in_dev(session, "pytest", "--distributed", *arguments)


@nox.session(venv_backend="none", requires=[DEV], default=False)
def properties(session: nox.Session) -> None:
    """Hold the reference implementation to ten thousand plans that Hypothesis draws, and say how many a second."""
    chapter = "inbackward_conformance.requirements.test_properties"
    options = ["--implementation", "reference", "--hypothesis-profile", "thorough", "-p", "no:randomly", "-n", "2"]
    run_in_dev(session, "pytest", "--pyargs", chapter, *options, *session.posargs)


@nox.session(venv_backend="virtualenv", reuse_venv=False, default=False)
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it into an empty environment, run the suite from an empty folder."""
    with TemporaryDirectory(prefix="inbackward-") as scratch:  # outside the checkout: pytest reads no pyproject.toml
        dist, empty = Path(scratch, "dist"), Path(scratch, "empty")
        session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), ".")
        (built,) = dist.glob("*.whl")
        # Used once, so compile only what is imported: half of an install of torch is compiling it.
        session.install("--no-compile", "-c", str(CONSTRAINTS), f"{built}[conformance]")
        session.env["PYTHONDONTWRITEBYTECODE"] = None
        empty.mkdir()
        with session.chdir(empty):
            session.run("python", "-c", FROM_SITE_PACKAGES, log=False)
            session.run("python", "-m", "pytest", *suite_arguments(Path(scratch, "report.jsonl"), session.posargs))
