"""The project's sessions: `nox -l` lists them, `nox -s NAME` runs one, CI calls nothing else.

Most share one environment, which the session `dev-…` makes: torch is installed once. Those that need other libraries
have their own: `architectures`, `browser`, `docs`, `matrix`, `recipes`, `third_party`, `torch_…` and `wheel`.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "mutants", "conformance", "distributed", "buckets"]

ROOT = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
AXE = "axe-core@4.14.1"
DEFAULT_CONSTRAINTS = "ci/constraints-torch-2.13.0.txt"
CONSTRAINTS = ROOT / (os.environ.get("INBACKWARD_CONSTRAINTS") or DEFAULT_CONSTRAINTS)

OF_WHEEL = ("attachment", "clipping", "hazards", "models", "properties", "state")

# An environment for each Python and each set of constraints, so that neither spoils the other.
DEV = f"dev-{sys.version_info.major}.{sys.version_info.minor}"
if CONSTRAINTS != ROOT / DEFAULT_CONSTRAINTS:
    DEV += "-" + CONSTRAINTS.stem.removeprefix("constraints-")

TORCH_VERSIONS = ("2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")

DEVICE_PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)]
MAX_DEVICE_WHEELS = 60 << 20

LIBRARIES = {
    "torch": (["reference", "reference-handed", "torch", "tutorial"], [], []),
    "optimi": (["optimi"], ["torch-optimi==0.3.3", "packaging"], []),  # which it imports, and does not ask for
    "torchtune": (["torchtune"], ["torchtune==0.6.1"], ["torchao==0.13.0"]),
    "torchtitan": (["torchtitan"], ["tokenizers==0.23.3", "triton==3.9.0", "tyro==1.0.17"], ["torchtitan==0.2.2"]),
    "torchrec": (["torchrec"], [], ["torchrec==1.9.2"]),
    "lomo": (["lomo", "adalomo"], ["lomo-optim==0.1.1", "transformers==5.24.0"], []),
    "heavyball": (["heavyball"], ["heavyball==3.2.1"], []),
    "prodigy-plus": (["prodigy-plus"], ["prodigy-plus-schedule-free==2.0.1"], []),
    "adv-optm": (["adv-optm"], ["adv-optm==2.5.16"], []),
    "transformers-galore": (
        ["transformers-galore"],
        ["transformers==5.23.0", "accelerate==1.15.0"],
        ["galore-torch==1.0", "bitsandbytes==0.50.2"],
    ),
}
"""Implementations of an environment, what they need, and what of that is installed without its dependencies."""

each_library = nox.parametrize(
    ("implementations", "requirements", "alone"),
    [nox.param(*library, id=name) for name, library in LIBRARIES.items()],
)

OF_MATRIX = ("--accept", "--anew")
"""What the session `matrix` takes itself, and does not pass on to pytest."""

FROM_SITE_PACKAGES = """
import importlib.util, pathlib, sysconfig
for name in ("inbackward", "inbackward_conformance"):
    folder = pathlib.Path(importlib.util.find_spec(name).origin).parent
    assert folder.parent.samefile(sysconfig.get_path("purelib")), f"{name} is imported from {folder}"
    assert (folder / "py.typed").is_file(), f"{name} has no py.typed"
"""


def run_in_dev(session: nox.Session, *args: str, program: str = "python") -> None:
    """Run a program of the shared environment, as if it were activated."""
    bin_dir = note_of_dev(session).read_text(encoding="utf-8")
    env = {
        "PATH": os.pathsep.join([bin_dir, os.environ.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(Path(bin_dir).parent),
        "PYTHONDONTWRITEBYTECODE": None,  # hundreds of processes: else each compiles what it imports
    }
    session.run(str(Path(bin_dir, program)), *args, env=env, external=True)


def note_of_dev(session: nox.Session) -> Path:
    """Name the file that says where the shared environment lies: nox shortens long paths, so no one can guess."""
    return session.cache_dir / f"{DEV}.txt"


def modules_of(chapters: tuple[str, ...]) -> list[str]:
    """Return the names of the modules of chapters."""
    return [f"inbackward_conformance.requirements.test_{chapter}" for chapter in chapters]


def suite_arguments(
    report: Path,
    posargs: list[str],
    implementations: tuple[str, ...] = ("reference", "reference-handed", "torch"),
    chapters: tuple[str, ...] = (),
) -> list[str]:
    """Say how pytest runs the suite, or some chapters: these implementations, unless the caller names others."""
    args = ["--pyargs", *(modules_of(chapters) or ["inbackward_conformance"]), "-p", "no:randomly", "-n", "2"]
    args += ["--case-seconds", "300"]  # on a busy machine inductor's first compilation takes more than a minute
    given = {arg.partition("=")[0] for arg in posargs}
    if "--implementation" not in given:
        args += [arg for name in implementations for arg in ("--implementation", name)]
    if "--conformance-report" not in given:
        report.parent.mkdir(parents=True, exist_ok=True)
        args += ["--conformance-report", str(report)]
    return [*args, *posargs]


def run_suite(session: nox.Session, record: str, *options: str) -> None:
    """Run the suite in the shared environment, and leave its record in the folder `build`."""
    run_in_dev(session, "-m", "pytest", *options, *suite_arguments(ROOT / "build" / record, session.posargs))


@nox.session(name=DEV, venv_backend="virtualenv", reuse_venv=True, default=False)
def dev(session: nox.Session) -> None:
    """Make the shared environment: this project, editable, and its development tools."""
    tools = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "dev")
    session.install("-c", str(CONSTRAINTS), "-e", ".[conformance]", *tools)
    note_of_dev(session).write_text(session.bin, encoding="utf-8")


@nox.session(venv_backend="none", requires=[DEV])
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and with import-linter that imports go one way."""
    run_in_dev(session, "-m", "ruff", "check")
    run_in_dev(session, "-m", "ruff", "format", "--check")
    run_in_dev(session, "--no-cache", "--no-logo", program="lint-imports")


@nox.session(venv_backend="none", requires=[DEV])
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    run_in_dev(session, "-m", "mypy")


@nox.session(venv_backend="none", requires=[DEV])
def tests(session: nox.Session) -> None:
    """Run the project's own tests, in random order; what follows `--` goes to pytest."""
    run_in_dev(session, "-m", "pytest", "-n", "2", "--dist", "loadfile", *session.posargs)


@nox.session(venv_backend="none", requires=[DEV])
def mutants(session: nox.Session) -> None:
    """Run every mutant over one case of every requirement, and print the score; `-- --accept` keeps what they fail."""
    run_in_dev(session, str(ROOT / "tests" / "score.py"), *session.posargs)


@nox.session(venv_backend="none", requires=[DEV])
def conformance(session: nox.Session) -> None:
    """Run the suite; what follows `--` goes to pytest (`--implementation`, `--device`, `-k`, ...)."""
    run_suite(session, "conformance.jsonl")


@nox.session(venv_backend="none", requires=[DEV])
def distributed(session: nox.Session) -> None:
    """Run the chapters of the suite that need several processes; what follows `--` goes to pytest."""
    run_suite(session, "distributed.jsonl", "--distributed")


@nox.session(venv_backend="none", requires=[DEV])
def buckets(session: nox.Session) -> None:
    """Hold the reference implementation to some chapters with smaller buckets: none at all, and of a few parameters."""
    each, few = "inbackward.adapter:HandOverEach", "inbackward.adapter:HandOverFew"
    options = ["-p", "no:randomly", "-n", "2", "--implementation", each, "--implementation", few]
    options += ["--expected", str(ROOT / "ci" / "each-at-once.toml"), *session.posargs]
    local = ("equivalence", "models", "gradients", "hazards", "accumulation", "clipping", "handed_over")
    for chapters, more in ((local, []), (("ddp", "fsdp"), ["--distributed"])):
        run_in_dev(session, "-m", "pytest", "--pyargs", *modules_of(chapters), *options, *more)


@nox.session(venv_backend="none", requires=[DEV], default=False)
@nox.parametrize("chapters", [nox.param("conformance", id="conformance"), nox.param("distributed", id="distributed")])
def gpu(session: nox.Session, chapters: str) -> None:
    """Run on cuda all that a GPU runner can: the suite, and its chapters that need several processes."""
    options = ["--distributed"] if chapters == "distributed" else []
    run_suite(session, f"{chapters}-cuda.jsonl", "--device", "cuda", *options)


@nox.session(venv_backend="none", requires=[DEV], default=False)
def device_wheels(session: nox.Session) -> None:
    """Fill `build/device_wheels` for `ci/on_device.sh`: this project and what the suite needs, without torch.

    What follows `--` says for which machine, in pip's options; for Python 3.12 on Linux, x86-64, unless given.
    """
    folder = ROOT / "build" / "device_wheels"
    shutil.rmtree(folder, ignore_errors=True)
    project = nox.project.load_toml(ROOT / "pyproject.toml")["project"]
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    run_in_dev(session, *build)
    machine = session.posargs or ["--python-version", "3.12", "--implementation", "cp", *DEVICE_PLATFORMS]
    needs = project["optional-dependencies"]["conformance"]
    run_in_dev(session, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "-d", str(folder), *machine, *needs)
    size = sum(path.stat().st_size for path in folder.iterdir())
    session.log(f"{len([*folder.iterdir()])} wheels, {size / 2**20:.0f} MiB: {folder.relative_to(ROOT)}")
    if size > MAX_DEVICE_WHEELS:
        session.error(f"more than {MAX_DEVICE_WHEELS / 2**20:.0f} MiB: has torch come along?")


@nox.session(venv_backend="none", requires=[DEV], default=False)
def properties(session: nox.Session) -> None:
    """Hold both implementations of ours to ten thousand plans each that Hypothesis draws."""
    ours = ["--implementation", "reference", "--implementation", "reference-handed"]
    options = [*ours, "--hypothesis-profile", "thorough", "-p", "no:randomly", "-n", "2"]
    run_in_dev(session, "-m", "pytest", "--pyargs", *modules_of(("properties",)), *options, *session.posargs)


@nox.session(venv_backend="none", requires=[DEV], default=False)
def bench(session: nox.Session) -> None:
    """Measure what a step of training costs, and its memory; what follows `--` goes to `python -m bench`."""
    run_in_dev(session, "-m", "bench", *session.posargs)


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False)
@each_library
def matrix(session: nox.Session, implementations: list[str], requirements: list[str], alone: list[str]) -> None:
    """Run the suite on libraries of others, here and on ranks, each in its own environment; make one page.

    What follows `--` goes to pytest, but for `--accept`, which keeps the results for the documentation, and `--anew`,
    which also repeats runs whose records are there.
    """
    session.install("-c", str(CONSTRAINTS), "-e", ".[conformance]")
    install_libraries(session, requirements, alone)
    folder = ROOT / "build" / "matrix"
    known = [name for names, _, _ in LIBRARIES.values() for name in names]
    records = [folder / f"{name}{part}.jsonl" for name in known for part in ("", "-distributed")]
    options = ["-q", "-p", "no:randomly", "-n", "2", "--case-seconds", "300"]
    options += [each for each in session.posargs if each not in OF_MATRIX]
    chosen = [*implementations, *(["--anew"] if "--anew" in session.posargs else [])]
    try:
        session.run("python", str(ROOT / "ci" / "record_each.py"), str(folder), *chosen, "--", *options)
    finally:
        there = [str(record) for record in records if record.exists()]
        session.run("python", "-m", "inbackward_conformance", "matrix", *there, "-o", str(ROOT / "build/matrix.html"))
    if "--accept" in session.posargs:
        session.run("python", str(ROOT / "ci" / "keep_results.py"), str(folder), *implementations)


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False, requires=[DEV])
@each_library
def findings(session: nox.Session, implementations: list[str], requirements: list[str], alone: list[str]) -> None:
    """Run the script of every finding by a Python that has its library and not the suite: each shows its difference."""
    session.install("-c", str(CONSTRAINTS), "torch", "numpy")  # some functions of torch need it
    install_libraries(session, requirements, alone)
    run_in_dev(session, str(ROOT / "ci" / "run_findings.py"), str(Path(session.bin, "python")), *implementations)


def install_libraries(session: nox.Session, requirements: list[str], alone: list[str]) -> None:
    """Install what some implementations need; what of that is `alone`, without its dependencies."""
    try:
        if requirements:
            session.install("-c", str(CONSTRAINTS), *requirements)
        if alone:
            session.install("--no-deps", *alone)
    except CommandFailed:  # a record says what that comes to
        session.warn(f"cannot be installed here: {', '.join(requirements + alone)}")


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False)
@nox.parametrize("torch", [nox.param(each, id=each) for each in TORCH_VERSIONS])
def torch_versions(session: nox.Session, torch: str) -> None:
    """Run the suite, here and on ranks, with each version of torch in an environment of its own; make one table."""
    run_with_torch(session, torch)


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False)
def torch_nightly(session: nox.Session) -> None:
    """Do the same with torch's nightly build, of the index that pip is told of."""
    run_with_torch(session, "nightly", "--pre", "--upgrade")


def run_with_torch(session: nox.Session, torch: str, *options: str) -> None:
    """Record the suite with a version of torch, and print the table of all records that are there.

    It fails if the reference implementation is not conformant, and not for what torch's own fails: other versions raise
    other errors.
    """
    constraints = ROOT / "ci" / f"constraints-torch-{torch}.txt"
    session.install("--no-compile", *options, "-c", str(constraints), "-e", ".[conformance]")
    folder = ROOT / "build" / "torch_versions"
    for part, chosen in (("local", []), ("distributed", ["--distributed"])):
        arguments = [*chosen, "-q", *suite_arguments(folder / f"{torch}-{part}.jsonl", session.posargs)]
        session.run("python", "-m", "pytest", *arguments, success_codes=[0, 1])
    session.run("python", str(ROOT / "ci" / "torch_table.py"), str(folder))


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False)
def architectures(session: nox.Session) -> None:
    """Run the chapter of models of other libraries, and its mutants; what follows `--` goes to pytest."""
    of_extra = ROOT / "ci" / "constraints-architectures.txt"
    session.install("-c", str(CONSTRAINTS), "-c", str(of_extra), "-e", ".[conformance,architectures]")
    report = ROOT / "build" / "architectures.jsonl"
    session.run("python", "-m", "pytest", *suite_arguments(report, session.posargs, chapters=("architectures",)))
    session.run("python", str(ROOT / "tests" / "score.py"), "--extra", "architectures")  # fails if nothing could run
    session.run("python", "-m", "pytest", "-n", "2", "-p", "no:randomly", str(ROOT / "tests" / "test_architectures.py"))


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False)
def recipes(session: nox.Session) -> None:
    """Run the recipes of the library's page, on a CPU, with the versions of other libraries that they name."""
    scripts = sorted((ROOT / "impl" / "recipes").glob("*.py"))
    wanted = {each for script in scripts for each in nox.project.load_toml(script)["dependencies"]}
    session.install("-c", str(CONSTRAINTS), "-e", ".", *sorted(wanted))
    for script in scripts:
        session.run("python", str(script))


@nox.session(venv_backend="virtualenv", reuse_venv=False, default=False)
def wheel(session: nox.Session) -> None:
    """Build sdist and wheel, install what the sdist gives into an empty environment, run chapters from an empty folder.

    The files for a release are in `build/dist`, checked by twine.
    """
    dist = ROOT / "build" / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build==1.6.1", "twine==7.0.0")
    session.run("python", "-m", "build", "--outdir", str(dist), str(ROOT), silent=True)  # the wheel from the sdist
    session.run("python", "-m", "twine", "check", "--strict", *map(str, sorted(dist.iterdir())))
    with TemporaryDirectory(prefix="inbackward-") as scratch:  # outside the checkout: pytest reads no pyproject.toml
        (sdist,) = dist.glob("*.tar.gz")
        install_wheels(session, scratch, sdist)
        session.run("python", "-c", FROM_SITE_PACKAGES, log=False)
        report = Path(scratch, "report.jsonl")
        # The code is that of the session `conformance`; what a wheel can lack is a file.
        arguments = suite_arguments(report, session.posargs, ("reference-handed", "torch"), OF_WHEEL)
        session.run("python", "-m", "pytest", *arguments)
        session.run("python", "-m", "inbackward_conformance", "matrix", str(report), "-o", "matrix.html")


@nox.session(venv_backend="virtualenv", reuse_venv=False, default=False)
def third_party(session: nox.Session) -> None:
    """Install a package of somebody else's beside ours, find it by its entry point, run three chapters on it."""
    project = ROOT / "tests" / "third_party"
    with TemporaryDirectory(prefix="inbackward-") as scratch:
        report = Path(scratch, "report.jsonl")
        install_wheels(session, scratch, ROOT, project)
        known = ["--implementation", "tiny-release", "--expected", str(project / "known.toml")]
        chapters = modules_of(("equivalence", "models", "schedule"))
        session.run("python", "-m", "pytest", "--pyargs", *chapters, "--conformance-report", str(report), *known)
        session.run("python", "-m", "inbackward_conformance", "matrix", str(report))


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation, with warnings as errors, and check that its links lead somewhere: `build/docs`."""
    tools = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "docs")
    session.install("-c", str(CONSTRAINTS), "-e", ".[conformance]", *tools)
    source, site = ROOT / "build" / "docs-source", ROOT / "build" / "docs"
    session.run("python", "-m", "docs.site", str(source))
    shutil.rmtree(site, ignore_errors=True)
    options = ["-q", "-n", "-W", "--keep-going", "-E", "-d", str(ROOT / "build" / "docs-doctrees")]
    session.run("python", "-m", "sphinx", *options, str(source), str(site))
    session.run("python", "-m", "docs.site.check_links", str(site))


@nox.session(venv_backend="virtualenv", reuse_venv=True, default=False, requires=["docs"])
def browser(session: nox.Session) -> None:
    """Drive the documentation and the page of records in Chromium, and check their accessibility with axe.

    What follows `--` goes to pytest.
    """
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        session.skip(f"no browser: install one of {', '.join(CHROMIUM)} (Debian: apt-get install chromium)")
    tools = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "browser")
    session.install("-c", str(CONSTRAINTS), *tools)
    session.install("--no-deps", "-e", ".")
    env = {"INBACKWARD_CHROMIUM": chromium}
    if shutil.which("npm"):
        prefix = Path(session.create_tmp())
        session.run("npm", "install", "--silent", "--no-save", "--prefix", str(prefix), AXE, external=True)
        env["INBACKWARD_AXE"] = str(prefix / "node_modules" / "axe-core" / "axe.min.js")
    else:
        session.warn("no npm: accessibility is NOT checked")
    env["INBACKWARD_SITE"] = str(ROOT / "build" / "docs")
    pages = ["tests/browser/matrix_page.py", "tests/browser/docs_site.py"]
    options = ["-rs", "--confcutdir", "tests/browser"]  # our other tests want torch
    session.run("python", "-m", "pytest", *options, *pages, *session.posargs, env=env)


def install_wheels(session: nox.Session, scratch: str, *projects: Path) -> None:
    """Build a wheel of each project, install them into the session's environment, and go to an empty folder."""
    dist, empty = Path(scratch, "dist"), Path(scratch, "empty")
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), *map(str, projects))
    wheels = [
        f"{built}[conformance]" if built.name.startswith("inbackward-") else str(built) for built in dist.iterdir()
    ]
    # Used once, so compile only what is imported: half of an install of torch is compiling it.
    session.install("--no-compile", "-c", str(CONSTRAINTS), *wheels)
    session.env["PYTHONDONTWRITEBYTECODE"] = None
    empty.mkdir()
    session.chdir(empty)
