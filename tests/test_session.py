"""From cases to a verdict: outcomes, the record, expected failures, the summary, the exit status."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from datetime import datetime, timedelta, timezone

import pytest
from expecttest import assert_expected_inline

from conftest import Suite
from inbackward_conformance.specification import specification

MODULE = """
import os
import torch
import mutants.naive
import mutants.of_ddp
from inbackward_conformance import NotOffered
from inbackward_conformance.adapters.declarations import OwnOptimizer

class Sound(mutants.naive.Naive):
    pass

class TurnsGradientsOff(Sound):
    def optimizers(self, module):
        torch.set_grad_enabled(False)
        return super().optimizers(module)

def settings():
    import numpy, os, random, signal, sys, warnings
    return [
        torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(),
        torch.get_float32_matmul_precision(), torch.is_anomaly_enabled(), torch.is_autocast_enabled("cpu"),
        torch.backends.mkldnn.enabled, torch.backends.cudnn.benchmark, torch.get_default_device(),
        os.getcwd(), os.environ.get("OF_A_CASE"), os.environ.get("HOME"), signal.getsignal(signal.SIGINT),
        sys.getrecursionlimit(), "error" in [each[0] for each in warnings.filters],
        random.getstate(), repr(numpy.random.get_state()),
    ]

class ChangesSettings(Sound):
    before = []

    def __init__(self):
        self.before.append(settings())
        if self.before[0] != self.before[-1]:
            raise RuntimeError("finds the settings of another case")

    def optimizers(self, module):
        import numpy, os, random, signal, sys, warnings
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(3)
        torch.set_float32_matmul_precision("medium")
        torch.autograd.set_detect_anomaly(True)
        torch.set_autocast_enabled("cpu", True)
        torch.backends.mkldnn.enabled = False
        torch.backends.cudnn.benchmark = True
        torch.set_default_device("meta")
        os.chdir("/")
        os.environ["OF_A_CASE"] = "1"
        del os.environ["HOME"]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.setrecursionlimit(4000)
        warnings.simplefilter("error")
        random.random()
        numpy.random.rand()
        return super().optimizers(module)

class ChangesSettingsOnRanks(mutants.of_ddp.AfterBackward):
    def __init__(self):
        super().__init__()
        if torch.get_num_threads() != 1 or os.environ.get("OF_A_CASE") or os.getcwd() == "/":
            raise RuntimeError("finds the settings of another case")

    def backward(self, loss, module):
        super().backward(loss, module)
        torch.set_num_threads(3)
        os.environ["OF_A_CASE"] = "1"
        os.chdir("/")

class OnlyCuda(Sound):
    requires_device = "cuda"

    def __init__(self):
        raise AssertionError("Torch not compiled with CUDA enabled")

class Declares(Sound):
    own_optimizers = [OwnOptimizer("torch.optim:SGD", {"lr": 0.1}), OwnOptimizer("torch.optim:AdamW", {"lr": 0.1})]
    rounding = (1e-6, "sums have another order")

class UnlistedOptimizers(Sound):
    def optimizers(self, module):
        raise NotOffered("it keeps none")

class RefusesUnhooked(Sound):
    def apply(self, optimizer_class, params, optimizer_kwargs, register_hook=True):
        if not register_hook:
            raise ValueError("optimizers without a hook are not supported; leave register_hook=True")
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)

class Accident(Sound):
    def apply(self, *args, **kwargs):
        self.missing

class Hangs(Sound):
    def step(self, optimizer, param):
        while len(getattr(param, "optimizers")) == 2:
            pass
        super().step(optimizer, param)

class BadSetUp(Sound):
    def standard_optimizer(self, optimizer_class, params, kwargs):
        return optimizer_class(params, **kwargs, no_such_option=1)

class HangsOnBadInput(Sound):
    def apply(self, optimizer_class, params, optimizer_kwargs, register_hook=True):
        params = list(params)
        while not params:
            pass
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)

class Unhooked(Sound):
    def attach_to(self, param, optimizer, *, hook):
        super().attach_to(param, optimizer, hook=True)
"""


@pytest.fixture(autouse=True)
def module(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(x=MODULE)


def sections(result: pytest.RunResult) -> str:
    """The summary of ours, without times and colours."""
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(line.rstrip() for line in result.outlines))
    return text[text.index("inbackward conformance =") :].partition("\n")[2].partition("\n====")[0]


def test_the_record_has_the_promised_keys(suite: Suite) -> None:
    result = suite.run("--implementation", "x:Sound", "--conformance-seed", "7")
    assert result.ret == pytest.ExitCode.OK
    header, *lines, footer = suite.record()
    assert datetime.now(timezone.utc) - datetime.fromisoformat(header["date"]) < timedelta(minutes=5)
    header |= dict.fromkeys(("date", "inbackward", "torch", "python"), "")
    cases = [line for line in lines if line["kind"] == "case"]
    requirements = [line for line in lines if line["kind"] == "requirement"]
    assert lines == cases + requirements
    written = [header, cases[0] | {"seconds": 0}, requirements[0], footer]
    assert_expected_inline(
        "\n".join(textwrap.fill(json.dumps(line), 110) for line in written),
        """\
{"kind": "header", "date": "", "spec": "1.0", "inbackward": "", "torch": "", "python": "", "device": "cpu",
"seed": 7, "profile": "quick", "versions": {"x:Sound": ""}, "optimizers": {}, "rounding": {}, "world_size":
null, "dry_run": false}
{"kind": "case", "implementation": "x:Sound", "requirement": "no_hook/backward_steps_nothing", "case": "",
"level": "MUST", "outcome": "conforms", "passed": true, "detail": "", "seconds": 0, "expected": false, "plan":
"", "arguments": {}, "script": "", "script_ends": "", "drawn": 0, "difference": null, "not_in_torch": false}
{"kind": "requirement", "implementation": "x:Sound", "requirement": "no_hook/backward_steps_nothing", "level":
"MUST", "outcome": "conforms", "passed": true, "expected": false, "text": "Backward leaves parameters alone
and gradients in place; a second backward adds to them.", "cases": 1, "ran": true, "applies": true, "tested":
1}
{"kind": "footer", "implementations": {"x:Sound": {"verdict": "conformant", "conforms": 4, "not offered": 0,
"not run": 0, "refuses": 0, "fails": 0, "diverges": 0, "error": 0, "hangs": 0, "crashes": 0, "levels":
{"MUST": {"kept": 4, "broken": 0, "in part": 0, "not offered": 0, "not run": 0}, "SHOULD": {"kept": 0,
"broken": 0, "in part": 0, "not offered": 0, "not run": 0}}}}, "selection": "no_hook", "whole": true}""",
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_outcomes_become_verdicts(suite: Suite, workers: tuple[str, ...]) -> None:
    """Several implementations in one run, each with its outcomes; the same with workers and without."""
    names = ["Sound", "UnlistedOptimizers", "RefusesUnhooked", "Accident", "BadSetUp", "Unhooked"]
    result = suite.run(*(f"--implementation=x:{name}" for name in names), *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes: dict[str, list[str]] = {}
    for line in suite.record():
        if line["kind"] == "requirement":
            outcomes.setdefault(line["implementation"], []).append(line["outcome"])
    assert list(suite.outcomes()) == [name for name in specification() if name.startswith("no_hook/")]
    assert_expected_inline(
        "\n".join(f"{name} {verdict}: {', '.join(outcomes[name])}" for name, verdict in suite.verdicts().items()),
        """\
x:Sound conformant: conforms, conforms, conforms, conforms
x:UnlistedOptimizers incomplete: conforms, not offered, conforms, conforms
x:RefusesUnhooked not conformant: refuses, refuses, refuses, refuses
x:Accident not conformant: fails, fails, fails, fails
x:BadSetUp not conformant: error, error, error, error
x:Unhooked not conformant: diverges, diverges, diverges, conforms""",
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_the_summary_at_a_glance(suite: Suite, workers: tuple[str, ...]) -> None:
    """Failures first, a line a chapter, the verdict last, and once."""
    result = suite.run("--implementation=x:RefusesUnhooked", "--implementation=x:Sound", *workers)
    assert "FAIL" not in result.stdout.str()
    result.stdout.fnmatch_lines(["x:Sound: conformant *", "=* 7 passed, 3 refuses in *="], consecutive=True)
    assert_expected_inline(
        sections(result),
        """\
x:RefusesUnhooked
  MUST refuses: no_hook/backward_steps_nothing and 2 more requirements, 3 cases
    event 0, Attach() raises ValueError: optimizers without a hook are not
    supported; leave register_hook=True
    also no_hook/stepped_by_hand, no_hook/beside_hooked_parameters
  no_hook               1 of  4 kept, 1 by refusing   3 refuses
x:RefusesUnhooked: not conformant (MUST 1 of 4 kept, 3 broken; 5 cases)
x:Sound
  no_hook               4 of  4 kept
x:Sound: conformant (MUST 4 of 4 kept; 5 cases)""",
    )


def test_quiet_is_a_line_an_implementation(suite: Suite) -> None:
    result = suite.run("--implementation=x:Sound", "--implementation=x:Unhooked", "-q", "--color=yes")
    assert_expected_inline(
        sections(result).partition(" in ")[0],
        """\
x:Sound: conformant (MUST 4 of 4 kept; 5 cases)
x:Unhooked: not conformant (MUST 1 of 4 kept, 3 broken; 5 cases)
7 passed, 3 diverges""",
    )


def test_an_error_is_printed_with_its_traceback(suite: Suite) -> None:
    result = suite.run("--implementation=x:BadSetUp", "--implementation=x:Unhooked")
    result.stdout.fnmatch_lines(
        [
            "*= FAILURES =*",
            "E * RuntimeError: the plan proves nothing*",
            "E * RuntimeError: the plan proves nothing*",
            "  MUST error: no_hook/backward_steps_nothing and 1 more requirement, 2 cases",
            "*2 failed, 2 passed, 3 diverges, 3 with the same error*",
        ]
    )
    assert "[x:Unhooked" not in result.stdout.str()
    assert len(re.findall("^E +RuntimeError: ", result.stdout.str(), re.MULTILINE)) == 2


def test_a_case_begins_with_grad_mode_on(suite: Suite) -> None:
    """What one implementation leaves behind is not held against the next."""
    suite.run("--implementation=x:TurnsGradientsOff", "--implementation=x:Sound")
    assert suite.verdicts() == {"x:TurnsGradientsOff": "not conformant", "x:Sound": "conformant"}


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_case_begins_with_the_same_settings(suite: Suite, workers: tuple[str, ...]) -> None:
    """Whatever the case before has changed."""
    suite.run("--implementation=x:ChangesSettings", "--implementation=x:Sound", *workers, chapter="listing")
    assert suite.verdicts()["x:Sound"] == "conformant"
    assert not [case for case in suite.cases() if "finds the settings of another case" in case["detail"]]


def test_a_case_on_ranks_begins_with_the_same_settings(suite: Suite) -> None:
    chosen = ("--distributed", "-k", "many_buckets and views-before")
    suite.run("--implementation=x:ChangesSettingsOnRanks", *chosen, chapter="ddp")
    assert len(suite.cases()) > 1
    assert not [case for case in suite.cases() if case["outcome"] != "conforms"]


def test_what_requires_another_device_is_not_run(suite: Suite) -> None:
    """Not even its constructor; the reason is told once."""
    result = suite.run("--implementation=x:OnlyCuda")
    assert result.ret == pytest.ExitCode.OK
    assert {case["detail"] for case in suite.cases()} == {"it requires cuda, and the run is on cpu"}
    assert_expected_inline(
        sections(result),
        """\
x:OnlyCuda
  no_hook               0 of  4 kept   4 not run
  not run: it requires cuda, and the run is on cpu (4 requirements)
x:OnlyCuda: incomplete (MUST 0 of 4 kept, 4 not run; 5 cases)""",
    )


def test_what_an_adapter_declares_is_in_record_and_verdict(suite: Suite) -> None:
    result = suite.run("--implementation=x:Declares", "--implementation=x:Sound", "-k", "backward_steps_nothing", "-q")
    header = suite.record()[0]
    assert header["optimizers"] == {"x:Declares": ["torch.optim:SGD", "torch.optim:AdamW"]}
    assert header["rounding"] == {"x:Declares": {"size": 1e-6, "reason": "sums have another order"}}
    result.stdout.fnmatch_lines(["x:Declares: *) to 1e-06 of the largest value (sums have another order)"])
    result.stdout.no_fnmatch_line("x:Sound: *largest value*")


def test_a_case_begins_with_the_same_random_numbers(suite: Suite) -> None:
    """What it says does not depend on the cases before it, numbers included."""
    details = []
    for before in ([], ["--implementation=x:Sound"]):
        named = [*before, "--implementation=mutants.of_hazards:GuardWithoutFinally"]
        suite.run(*named, "-k", "after_an_error and step", chapter="hazards")
        details.append([case["detail"] for case in suite.cases() if "mutants" in case["implementation"]])
    assert "largest difference" in details[0][0]
    assert details[0] == details[1]


def test_a_case_that_does_not_end_hangs(suite: Suite) -> None:
    """The next cases run as if nothing had been."""
    result = suite.run("--implementation=x:Hangs", "--case-seconds=2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = suite.outcomes()
    assert outcomes.pop("no_hook/hooked_and_unhooked") == "hangs"
    assert set(outcomes.values()) == {"conforms"}
    details = [line["detail"] for line in suite.cases() if line["outcome"] == "hangs"]
    assert all(re.search(r"still running after 2 s, at Hangs.step in .*x.py:\d+", detail) for detail in details)


def test_a_case_that_kills_its_process_crashes(suite: Suite) -> None:
    """With workers the run goes on, and the record is complete."""
    result = suite.run("--implementation=hostile:Dies", "-n", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = suite.outcomes()
    assert outcomes.pop("no_hook/hooked_and_unhooked") == "crashes"
    assert set(outcomes.values()) == {"conforms"}
    crashed = [line for line in suite.cases() if line["outcome"] == "crashes"]
    assert [line["case"] for line in crashed] == ["hooked-first", "unhooked-first"]
    assert suite.verdicts() == {"hostile:Dies": "not conformant"}


def test_a_hang_is_no_rejection(suite: Suite) -> None:
    result = suite.run("--implementation=x:HangsOnBadInput", "--case-seconds=2", "-k", "empty", chapter="attachment")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [line["outcome"] for line in suite.cases()] == ["hangs"]


def test_a_run_that_died_has_no_footer(suite: Suite) -> None:
    suite.run("--implementation=hostile:Dies", "-p", "no:xdist")
    assert [line["kind"] for line in suite.record()] == ["header", "case", "case", "case"]


@pytest.mark.parametrize(
    "options",
    [("-k", "stepped_by_hand"), ("-p", "leaves_out"), ("-p", "leaves_out", "-n", "1")],
    ids=["by hand", "by a plugin", "by a plugin of a worker"],
)
def test_cases_left_out_leave_the_verdict_incomplete(
    suite: Suite, pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        leaves_out="""
        def pytest_collection_modifyitems(config, items):
            config.hook.pytest_deselected(items=items[1:])
            del items[1:]
        """
    )
    result = suite.run("--implementation=x:Sound", *options)
    assert result.ret == pytest.ExitCode.OK
    assert suite.verdicts() == {"x:Sound": "incomplete"}


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--device=cuda:77", "ERROR: --device cuda:77: torch cannot use it here (*); use --device cpu"),
        ("--device=meta", "ERROR: --device meta: torch cannot use it here (*); use --device cpu"),
        ("--conformance-seed=-1", "*--conformance-seed: '-1' is no seed; give a number from 0 to 1000000*"),
        ("--conformance-repro=x.py", "ERROR: --conformance-repro x.py: it is a file; name a folder"),
        ("--hypothesis-profile=slow", "ERROR: --hypothesis-profile slow: no such profile; choose quick, ci, thorough"),
        ("--case-seconds=-1", "*--case-seconds: '-1' is no time limit; give seconds, such as 60*"),
        ("--case-seconds=nan", "*--case-seconds: 'nan' is no time limit; give seconds, such as 60*"),
    ],
)
def test_options_are_checked_before_anything_runs(suite: Suite, option: str, line: str) -> None:
    result = suite.run("--implementation=x:Sound", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


def test_another_plugin_may_have_an_option_of_the_same_name(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_addoption(parser):\n    parser.addoption('--device')")
    pytester.makepyfile("def test_nothing(pytestconfig):\n    assert pytestconfig.getoption('device') == 'mine'")
    pytester.runpytest_subprocess("--device=mine", "-p", "no:randomly").assert_outcomes(passed=1)


def test_the_plugin_may_be_named(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pytest does not look for plugins by itself."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugin = ("-p", "inbackward_conformance.plugin")
    result = suite.run(*plugin, "--implementation=x:Sound", "-k", "backward_steps_nothing")
    assert result.ret == pytest.ExitCode.OK
    assert len(suite.cases()) == 1


@pytest.mark.parametrize("module", ["inbackward_conformance", "inbackward_conformance.plugin"])
def test_an_import_loads_nothing_heavy(module: str, pytester: pytest.Pytester) -> None:
    """Everyone's pytest imports the plugin: nothing heavy comes with it, and nothing that only a command needs."""
    heavy = {"torch", "numpy", "hypothesis", "expecttest", "jinja2", "multiprocessing", "concurrent.futures"}
    code = f"import pytest, sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    result = pytester.run(sys.executable, "-c", code)
    assert module in (imported := set(result.outlines[0].split()))
    assert not heavy & imported


def test_other_runs_see_nothing_of_it(pytester: pytest.Pytester) -> None:
    """Neither torch nor hypothesis is imported, and no line is printed."""
    pytester.makepyfile("import sys\n\ndef test_nothing():\n    assert not {'torch', 'hypothesis'} & set(sys.modules)")
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:randomly")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*conformance*")
