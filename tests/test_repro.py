"""Scripts that reproduce failures: they need torch and what has failed, and nothing of the suite."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest
from expecttest import assert_expected_inline

from conftest import Record, Suite, read_record
from inbackward_conformance.__main__ import main
from inbackward_conformance.outcome import Compared, Difference
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward
from inbackward_conformance.plan.literals import read
from inbackward_conformance.repro.call_templates import CallTemplates
from inbackward_conformance.repro.failure import CannotWrite, Failure
from inbackward_conformance.repro.from_record import find_failure
from inbackward_conformance.repro.reproduce import source_of_failure
from inbackward_conformance.repro.run_script import End, unlike_the_record
from inbackward_conformance.specification import specification
from test_plan import PLANS

HERE = Path(__file__).parent

HERE_ALONE = {
    "attachment/frozen": "AttributeError: 'NoneType' object has no attribute 'next_functions'",
    "attachment/after_a_failure": "0.weight: Tensor-likes are not equal!",
    "attachment/failure_in_the_middle": "is rejected, but something is attached",
    "equivalence/closure": "LBFGS.step() missing 1 required positional argument: 'closure'",
    "functional/default_options": "Tensor-likes are not equal!",
    "functional/no_gradient": "IndexError: list index out of range",
    "gradients/from_before_unreached": "left.weight: Tensor-likes are not equal!",
    "hazards/tensor_subclass": "first: Tensor-likes are not equal!",
    "lifetime/cast_in_training": "0.weight: Tensor-likes are not equal!",
    "lifetime/dropped_model": "still alive after the model was dropped: 6 parameters, 12 optimizers",
    "properties/repeated_listings": "The length of the sequences mismatch",
    "schedule/tensor_lr": "0.weight: Tensor-likes are not equal!",
    "sharing/listed_twice_with_state": "The length of the sequences mismatch",
    "state/saved_parameter": "torch.optim.adam.Adam",
}
ON_RANKS = {
    "ddp/static_graph": "RuntimeError: Cannot access accelerator device when none is available",
    "fsdp/unused_parameters": "trunk.weight: Tensor-likes are not equal!",
    "hook_then_optimizer/foreign_parameters": "a parameter that the model does not have is accepted",
}
"""Failures of torch's own, and what the output of their scripts ends with: more than ten, of every kind."""

FAILING_CASES = {
    "fsdp/unused_parameters": "FSDP2",
    "functional/no_gradient": "SGD-first-step-step_param",
}
"""The case of a requirement whose first case does not fail."""

LAST_LINES = 8
"""What `torch.testing.assert_close` says in: which, how many, how far."""

MOST_LINES_OF_CODE = 110
MOST_LINES_OF_HALF = 60
"""Lines of code: without blank ones and the docstring."""


class Written(NamedTuple):
    """What a run with `--conformance-repro` left."""

    where: str
    told: dict[str, str]
    printed: str
    report: Path
    cases: Record

    def scripts(self) -> dict[str, Path]:
        """Return the script of the first case of each requirement."""
        return {case["requirement"]: Path(case["script"]) for case in reversed(self.cases) if case["script"]}


@pytest.fixture(scope="module", params=["here", "ranks"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    told = {"here": HERE_ALONE, "ranks": ON_RANKS}[request.param]
    folder = tmp_path_factory.mktemp("repro")
    report = folder / "record.jsonl"
    chapters = sorted({name.partition("/")[0] for name in told})
    selected = folder / "selected.json"
    selected.write_text(json.dumps({"torch": {name: [FAILING_CASES.get(name, "")] for name in told}}))
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:randomly", "--implementation", "torch"]
    command += ["--pyargs", *(f"inbackward_conformance.requirements.test_{chapter}" for chapter in chapters)]
    command += ["--conformance-select", str(selected)]
    command += ["--conformance-report", str(report), "--conformance-repro", str(folder / "scripts")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    cases = [line for line in read_record(report) if line["kind"] == "case"]
    return Written(request.param, told, done.stdout, report, cases)


def raised(error: str, of: str = "library.py") -> str:
    """Return the traceback of an error."""
    return f'Traceback (most recent call last):\n  File "{of}", line 1, in x\n    x()\n{error}\n'


def assertion(name: str) -> str:
    """Return the traceback of `torch.testing.assert_close`."""
    error = f"AssertionError: {name}: Tensor-likes are not equal!\n\nMismatched elements: 1 / 1 (100.0%)"
    return raised(error, "site-packages/torch/testing/_comparison.py")


def outcomes_of(paths: list[Path], *options: str) -> list[tuple[int, str]]:
    """Run scripts where the suite is not; return exit status and output of each."""
    command = [sys.executable, str(HERE / "without_the_suite.py"), *options, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_scripts_show_the_failures_of_torch(written: Written) -> None:
    """Each exits with an error and ends with what differs."""
    scripts = written.scripts()
    assert scripts.keys() >= written.told.keys()
    outcomes = outcomes_of([scripts[name] for name in written.told])
    for (status, output), (requirement, told) in zip(outcomes, written.told.items(), strict=True):
        assert status == 1, requirement
        last_lines = "\n".join(output.strip().splitlines()[-LAST_LINES:])
        assert told in last_lines, (requirement, output)
        if written.where == "here":  # on ranks the one that fails first tells of its own shards
            assert largest_difference(last_lines) == observed_difference(written, requirement), requirement


def largest_difference(output: str) -> str:
    """Return the number that `torch.testing.assert_close` gives, as a record has it."""
    found = re.search(r"Greatest absolute difference: (\S+)", output)
    return f"{float(found[1]):.3g}" if found else ""


def observed_difference(written: Written, requirement: str) -> str:
    """Return the number in the record."""
    detail = next(case["detail"] for case in written.cases if case["requirement"] == requirement and case["script"])
    found = re.search(r"largest difference ([^\s;]+)", detail)
    return found[1] if found else ""


def test_scripts_pass_for_what_conforms(written: Written, tmp_path: Path) -> None:
    """The same scripts, with another implementation in the place of torch's own."""
    paths = []
    for requirement in written.told:
        paths.append(tmp_path / f"{requirement.replace('/', '-')}.py")
        paths[-1].write_text(source_of_failure(find_failure(written.report, requirement), "reference"))
    for requirement, (status, output) in zip(written.told, outcomes_of(paths, "--with", "inbackward"), strict=True):
        assert status == 0, (requirement, output)


def test_scripts_are_short(written: Written) -> None:
    scripts = [path.read_text(encoding="utf-8") for path in written.scripts().values()]
    without_docstring = [script.split('"""', 2)[2].splitlines() for script in scripts]
    lines_of = sorted(sum(bool(line.strip()) for line in lines) for lines in without_docstring)
    assert lines_of[-1] <= MOST_LINES_OF_CODE
    assert lines_of[len(lines_of) // 2] <= MOST_LINES_OF_HALF


def test_every_failure_has_a_script(written: Written) -> None:
    assert [case["script"] for case in written.cases if case["script"].startswith("none")] == []


def test_scripts_end_as_the_record_says(written: Written) -> None:
    """They are run when they are written, and the summary would name those that end otherwise."""
    assert {case["requirement"] for case in written.cases if case["script"]} == {*written.told}
    assert [case["script_ends"] for case in written.cases if case["script_ends"]] == []
    assert "end otherwise" not in written.printed


def test_scripts_are_laid_out_and_name_nothing_of_ours(written: Written) -> None:
    paths = [str(path) for path in written.scripts().values()]
    for command in (["format", "--check"], ["check", "--select=E,F4,F8,I", "--ignore=F841"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length=120", *paths]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for path in paths:
        assert "inbackward_conformance" not in Path(path).read_text(encoding="utf-8")


def test_the_terminal_names_every_script(written: Written) -> None:
    for case in written.cases:
        assert bool(case["script"]) is not case["passed"]
        assert f"script: {case['script']}" in written.printed or case["passed"]


def test_the_record_gives_the_same_script(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    for requirement, script in written.scripts().items():
        main(["repro", str(written.report), requirement])
        assert capsys.readouterr().out == script.read_text(encoding="utf-8")


def test_an_earlier_record_gives_the_same_script(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier records told the difference in the words of `detail` alone."""
    earlier = [
        {key: value for key, value in line.items() if key != "difference"} for line in read_record(written.report)
    ]
    report = tmp_path / "earlier.jsonl"
    report.write_text("\n".join(map(json.dumps, earlier)), encoding="utf-8")
    for requirement, script in written.scripts().items():
        main(["repro", str(report), requirement])
        assert capsys.readouterr().out == script.read_text(encoding="utf-8"), requirement


def test_a_failure_that_is_not_there_is_one_line(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    failed = next(iter(written.told))
    for arguments, message in {
        ("sharing/used_twice",): "sharing/used_twice has not failed there; what has: ",
        (failed, "--case", "x"): f"no such failure of {failed}; there are torch [",
    }.items():
        with pytest.raises(SystemExit):
            main(["repro", str(written.report), *arguments])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("example", PLANS, ids=["small", "large"])
def test_a_printed_plan_is_read_without_being_evaluated(example: Plan) -> None:
    assert repr(read(repr(example))) == repr(example)
    with pytest.raises(ValueError, match="malformed"):
        read("__import__('os')")


def test_a_script_is_what_a_maintainer_reads() -> None:
    tied = (("0.weight", "1.weight"),)
    listed = Assignment("Adam", {"lr": 0.01}, ("0.weight", "0.bias", "1.weight"))
    plan = Plan("TwoLayers", (listed,), (Backward(),) * 6, shared=tied)
    detail = "parameter '0.weight' differs from the standard loop after event 3, Backward(): largest difference 9e-10"
    requirement = specification()["sharing/listed_twice_with_state"]
    where = Difference(Compared.PARAMETERS, 3)
    assert_expected_inline(
        source_of_failure(Failure("torch", requirement, "Adam", "diverges", detail, where, plan)),
        """\
\"\"\"sharing/listed_twice_with_state (MUST): torch diverges in case Adam.

A parameter listed twice, with an optimizer that keeps state: what torch gives for that list, or refused.

Observed: parameter '0.weight' differs from the standard loop after event 3, Backward(): largest difference 9e-10
\"\"\"

from itertools import count

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[0].weight = model[1].weight
    return model


def standard_loop():
    model = build()
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    optimizer = torch.optim.Adam([model[0].weight, model[0].bias, model[1].weight], lr=0.01)
    for _ in range(3):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    batches = (torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)) for seed in count(1))
    _apply_optimizer_in_backward(torch.optim.Adam, [model[0].weight, model[0].bias, model[1].weight], {"lr": 0.01})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
""",
    )


DIES = """
import os

class Dies:
    def apply(self, optimizer_class, params, optimizer_kwargs, register_hook=True):
        for param in params:
            param.register_post_accumulate_grad_hook(lambda param: os._exit(3))

    def optimizers(self, module):
        return []
"""


def test_a_case_whose_process_died_has_a_script(suite: Suite, pytester: pytest.Pytester) -> None:
    """The worker has said what it was about to run."""
    pytester.makepyfile(x=DIES)
    options = ("-n", "1", "--conformance-repro", "scripts", "-k", "used_twice and Adam")
    suite.run("--implementation=x:Dies", *options, chapter="sharing")
    (case,) = suite.cases()
    assert case["outcome"] == "crashes"
    assert case["plan"].startswith("Plan('LayerUsedTwice'")
    assert "adapter.apply(torch.optim.Adam" in Path(pytester.path, case["script"]).read_text(encoding="utf-8")


TWICE = """
import os

class Twice:
    # The library lies elsewhere, and only for a script.
    spelling = {{
        "import": '''{needed}''',
        "apply": "attach({{optimizer_class}}, {{params}}, {{optimizer_kwargs}})",
        "optimizers": "[]",
    }}

    def apply(self, optimizer_class, params, optimizer_kwargs, register_hook=True):
        optimizer = optimizer_class(params, **optimizer_kwargs)
        def step(param):
            optimizer.step()
            optimizer.step()
            optimizer.zero_grad()
        for param in optimizer.param_groups[0]["params"]:
            param.register_post_accumulate_grad_hook(step)

    def optimizers(self, module):
        return []
"""

LIBRARY = """
import os, sys
assert "torch" not in sys.modules and os.environ["MODE"] == "twice"
attached = []

def attach(optimizer_class, params, options):
    optimizer = optimizer_class(params, **options)
    def step(param):
        optimizer.step()
        optimizer.step()
        optimizer.zero_grad()
    for param in optimizer.param_groups[0]["params"]:
        param.register_post_accumulate_grad_hook(step)
"""

NEEDED = """
        import os
        import sys

        sys.path.insert(0, "elsewhere")  # where the library is
        os.environ["MODE"] = "twice"
        # Before torch.
        from library import attach
"""


def run_twice(suite: Suite, pytester: pytest.Pytester, needed: str) -> tuple[pytest.RunResult, str, str]:
    pytester.makepyfile(x=TWICE.format(needed=needed))
    pytester.mkdir("elsewhere").joinpath("library.py").write_text(LIBRARY)
    options = ("-v", "--conformance-repro", "scripts", "-k", "used_twice and Adam")
    result = suite.run("--implementation=x:Twice", *options, chapter="sharing")
    (case,) = suite.cases()
    return result, Path(pytester.path, case["script"]).read_text(encoding="utf-8"), case["script_ends"]


def test_statements_under_import_stay_as_they_are(suite: Suite, pytester: pytest.Pytester) -> None:
    """They stand above the imports of the script, in their order and with their comments."""
    _, script, ends = run_twice(suite, pytester, NEEDED)
    assert textwrap.dedent(NEEDED).strip() in script
    assert script.index("from library import attach") < script.index("import torch")
    assert ends == ""


def test_a_script_that_ends_otherwise_is_told(suite: Suite, pytester: pytest.Pytester) -> None:
    result, _, ends = run_twice(suite, pytester, "from library import attach")
    assert ends.startswith("ends with ModuleNotFoundError: No module named 'library', the record says parameter ")
    result.stdout.fnmatch_lines(["*script: scripts/*.py (it ends with ModuleNotFoundError: *, the record says *)"])
    result.stdout.fnmatch_lines(["*1 of these scripts end otherwise than the record says"])


def test_a_script_goes_on_after_a_refusal(suite: Suite, pytester: pytest.Pytester) -> None:
    """What the refusal has left attached steps in the next backward."""
    options = ("--conformance-repro", "scripts", "-k", "test_frozen and floats")
    suite.run("--implementation=tutorial", *options, chapter="attachment")
    (case,) = suite.cases()
    assert case["detail"].startswith(
        "refused, but the next backward changes 0.weight: event 0, Attach() raises Runtime"
    )
    assert case["script_ends"] == ""
    (status, output), *_ = outcomes_of([Path(pytester.path, case["script"])])
    assert status == 1
    assert output.startswith("refused: RuntimeError: cannot register a hook on a tensor that doesn't require gradient")
    assert "AssertionError: 0.weight: Tensor-likes are not equal!" in output


@pytest.mark.parametrize(
    ("outcome", "compared", "detail", "status", "output", "told"),
    [
        ("diverges", Compared.PARAMETERS, "parameter '0.weight' differs", 0, "", "ends without an error, "),
        ("diverges", Compared.PARAMETERS, "parameter '0.weight' differs", 1, assertion("0.weight"), ""),
        ("diverges", Compared.PARAMETERS, "parameter '0.weight' differs", 1, assertion("weight"), "ends with Assert"),
        ("diverges", Compared.PARAMETERS, "parameter '0.weight' differs", None, "", "ends by the time limit, "),
        ("fails", Compared.ERROR, "Attach() raises ValueError: no lr", 1, raised("ValueError: no lr"), ""),
        ("fails", Compared.ERROR, "Attach() raises ValueError: no lr", 1, raised("ValueError: 2"), "ends with Value"),
        ("fails", Compared.ERROR, "Attach() raises ValueError: no lr", 1, assertion("lr"), "ends with AssertionError"),
        ("fails", Compared.AFTER_REFUSAL, "the next backward changes weight: no lr", 1, assertion("weight"), ""),
        ("fails", Compared.AFTER_REFUSAL, "changes weight: no lr", 1, raised("ValueError: 2"), "ends with Value"),
        ("fails", Compared.AFTER_REFUSAL, "changes weight: no lr", 1, f"refused: x\n{raised('RuntimeError: 2')}", ""),
        ("fails", Compared.AFTER_REFUSAL, "changes weight: no lr", 1, raised("RuntimeError: 2"), "ends with Run"),
        ("diverges", Compared.STANDARD_ERROR, "goes", 1, "goes through, where the standard loop raises X", ""),
        ("diverges", Compared.STANDARD_ERROR, "goes", 1, raised("KeyError: 'x'"), "ends with KeyError: 'x', "),
        ("hangs", Compared.PARAMETERS, "still running", 1, "Timeout (0:00:20)!\nThread 0x1:", ""),
        ("hangs", Compared.PARAMETERS, "still running", 0, "", "ends without an error, "),
        ("crashes", Compared.PARAMETERS, "worker 'gw0' crashed", -11, "Fatal Python error", ""),
        ("crashes", Compared.PARAMETERS, "worker 'gw0' crashed", 1, raised("KeyError: 'x'"), "ends with KeyError"),
    ],
)
def test_an_end_is_compared_with_the_record(  # noqa: PLR0917
    outcome: str, compared: Compared, detail: str, status: int | None, output: str, told: str
) -> None:
    requirement = specification()["sharing/used_twice"]
    plan = Plan("LayerUsedTwice", (Assignment("Adam"),), (Backward(),))
    failure = Failure("x", requirement, "", outcome, detail, Difference(compared, 1), plan)
    found = unlike_the_record(End(status, output), failure)
    assert found.startswith(told)
    assert bool(found) is bool(told)


class Lion:
    """An adapter whose library is not there, and that says how its calls are spelled."""

    spelling: ClassVar = {
        "import": "import lion",
        "apply": "lion.attach({params}, {optimizer_class}, {optimizer_kwargs})",
        "optimizers": "lion.of({module})",
        "backward": "lion.backward({loss}, {options})",
    }

    def apply(self) -> None: ...


def test_an_adapter_has_call_templates() -> None:
    templates = CallTemplates("test_repro:Lion")
    assert templates.imports == "import lion"
    attached = templates.write("apply", optimizer_class="SGD", params="ps", optimizer_kwargs="{}", register_hook="True")
    assert attached == "lion.attach(ps, SGD, {})"
    assert templates.write("backward", "retain_graph=True", loss="loss") == "lion.backward(loss, retain_graph=True)"
    plain = templates.write("standard_optimizer", optimizer_class="SGD", params="ps", optimizer_kwargs="{'lr': 0.1}")
    assert plain == "SGD(ps, lr=0.1)"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("made = attach({params})", "is no expression .*SyntaxError.*: made = attach"),
        ("attach({parameters})", r"KeyError: 'parameters'\): attach"),
        ("attach({})", "IndexError"),
        ("attach({params)", "ValueError"),
    ],
)
def test_a_template_that_is_no_expression(template: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter's author is told so, and how the arguments are called."""
    monkeypatch.setattr(Lion, "spelling", {"apply": template})
    with pytest.raises(CannotWrite, match=r"of \{params\}, \{options\}") as raised:
        CallTemplates("test_repro:Lion").write("apply", params="ps")
    assert re.search(told, str(raised.value))


def test_without_a_spelling_the_script_calls_what_was_tested() -> None:
    call = {"optimizer_class": "SGD", "params": "ps", "optimizer_kwargs": "{}", "register_hook": "True"}
    module, cls = CallTemplates("inbackward"), CallTemplates("mutants.naive:Naive")
    assert module.imports == "import inbackward"
    assert module.write("apply", **call) == "inbackward.apply_optimizer_in_backward(SGD, ps, {})"
    assert cls.imports == "from mutants.naive import Naive"
    assert cls.definitions == "adapter = Naive()"
    assert cls.write("apply", **call) == "adapter.apply(SGD, ps, {})"
