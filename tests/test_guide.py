"""The code blocks of the guide for authors, `conformance/README.md`, as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from conftest import Suite
from inbackward_conformance.outcome import Compared, Difference
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, Load, Save
from inbackward_conformance.repro.failure import Failure
from inbackward_conformance.repro.reproduce import source_of_failure
from inbackward_conformance.repro.run_script import run_script
from inbackward_conformance.specification import specification

HERE = Path(__file__).parent
GUIDE = HERE.parent / "conformance" / "README.md"
SHOWN = re.DOTALL | re.MULTILINE
LIBRARY = (HERE / "guide" / "my_library.py").read_text(encoding="utf-8")

CHAPTERS = (
    "attachment",
    "gradients",
    "hazards",
    "lifetime",
    "listing",
    "memory",
    "models",
    "multiple_optimizers",
    "no_hook",
    "properties",
    "schedule",
    "sharing",
    "state",
)
"""All that need one process, but for `functional`, which the library does not offer, and `equivalence`, whose 627 cases
take as long as all of these: they are about the library more than about the adapter."""

SPELLED = """
from mine import Mine as Adapter

{block}

class Spelled(Mine, Adapter):
    pass
"""

BIASES_ARE_FORGOTTEN = """
fuse_all = fuse

def fuse(optimizer_class, params, *, hook=True, **options):
    params = list(params)
    return [
        *fuse_all(optimizer_class, [param for param in params if param.dim() > 1], hook=hook, **options),
        *fuse_all(optimizer_class, [param for param in params if param.dim() == 1], hook=False, **options),
    ]
"""


def block_with(text: str) -> str:
    """Return the Python block of the guide that has this text."""
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), SHOWN)
    (block,) = (block for block in blocks if text in block)
    return str(block)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """The folder of an author who typed the guide's examples."""
    mine = block_with("class Mine:\n    def __init__")
    copied, spelled = block_with('spelling = "source"'), SPELLED.format(block=block_with("spelling = {"))
    copied = copied.replace('distribution = "my-library"\n', "")  # no such one is installed
    pytester.makepyfile(mine=mine, copied=copied, spelled=spelled)
    package = pytester.mkpydir("my_library")
    package.joinpath("__init__.py").write_text(LIBRARY, encoding="utf-8")
    package.joinpath("conformance.py").write_text(mine, encoding="utf-8")
    return pytester.path


@pytest.mark.usefixtures("project")
def test_the_adapter_finds_a_sound_library_conformant(suite: Suite) -> None:
    first, *others = CHAPTERS
    further = [f"inbackward_conformance.requirements.test_{chapter}" for chapter in others]
    suite.run(*further, "--implementation=mine:Mine", chapter=first)
    assert suite.verdicts() == {"mine:Mine": "conformant"}


@pytest.mark.usefixtures("project", "suite")
def test_the_test_of_ones_own_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_conformance=block_with("check_implementation("))
    result = pytester.runpytest_subprocess("test_conformance.py")
    result.assert_outcomes(passed=1)


@pytest.mark.usefixtures("suite")
def test_the_check_of_ones_own_model_prints_what_the_guide_shows(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command and its output stand one after the other; the test below them passes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside other tests, two threads take four times as long
    pytester.makepyfile(my_model=block_with("def build_model("), test_my_model=block_with("check_training("))
    guide = GUIDE.read_text(encoding="utf-8").replace("\\\n", "")
    ((command, shown),) = re.findall(
        r"^    python -m (inbackward_conformance check [^\n]*)\n+```\n(.*?)^```", guide, SHOWN
    )
    assert pytester.run(sys.executable, "-m", *command.split()).outlines == shown.splitlines()
    pytester.runpytest_subprocess("test_my_model.py").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("implementation", "call"),
    [
        ("spelled:Spelled", "attach(torch.optim.Adam, model.parameters(), hook=True, lr=0.01)"),
        ("copied", 'apply(torch.optim.Adam, model.parameters(), {"lr": 0.01})'),
    ],
)
def test_scripts_show_the_defect_of_a_library(implementation: str, call: str, suite: Suite, project: Path) -> None:
    """Each ends as the record says; none is there for what the library does right."""
    (project / "my_library" / "__init__.py").write_text(LIBRARY + BIASES_ARE_FORGOTTEN, encoding="utf-8")
    options = (f"--implementation={implementation}", "--conformance-repro=scripts")
    state = "inbackward_conformance.requirements.test_state"
    names = "dropped_model or rounds or frozen_and_thawed or roll_back or saved_parameter"
    result = suite.run(state, *options, "-k", names, chapter="lifetime")
    failed = {(case["requirement"], case["script_ends"]) for case in suite.cases() if not case["passed"]}
    assert failed == {("lifetime/frozen_and_thawed", ""), ("state/roll_back", "")}
    result.stdout.fnmatch_lines("*scripts of 4 cases in scripts*")
    result.stdout.no_fnmatch_line("*end otherwise than the record says*")
    script = next(project.glob("scripts/*roll_back-Adam.py")).read_text(encoding="utf-8")
    assert call in script
    assert "NotOffered" not in script
    assert f"import {implementation.partition(':')[0]}" not in script or ":" in implementation


DROPPED, RESUME = (specification()[name] for name in ("lifetime/dropped_model", "state/resume"))
RESUMED = Plan("MLP", (Assignment("Adam", {"lr": 0.01}),), (*(Backward(),) * 3, Save(), Load(), *(Backward(),) * 3))


@pytest.mark.parametrize("implementation", ["spelled:Spelled", "copied"])
@pytest.mark.parametrize(
    "failure",
    [
        Failure("", DROPPED, "", "fails", "", arguments={"hook": "True", "steps": "2"}),
        Failure("", RESUME, "", "diverges", "", Difference(Compared.PARAMETERS), RESUMED),
        Failure("", RESUME, "", "diverges", "", Difference(Compared.STATES), RESUMED),
    ],
    ids=["dropped_model", "resume-parameters", "resume-states"],
)
def test_scripts_pass_with_a_sound_library(
    failure: Failure, implementation: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they hold neither outlives a model, nor is taken for what belongs to a later one."""
    monkeypatch.syspath_prepend(project)
    script = project / "script.py"
    script.write_text(source_of_failure(failure, implementation), encoding="utf-8")
    end = run_script(script, 120)
    assert end.status == 0, end.output
