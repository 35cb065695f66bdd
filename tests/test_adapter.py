"""Whatever authors have is found: a class, an instance, a module; else one line says what to do."""

from __future__ import annotations

import textwrap
from importlib.metadata import version

import pytest
from expecttest import assert_expected_inline

from conftest import Suite
from inbackward_conformance import RunFailed, check_implementation
from inbackward_conformance.__main__ import main

TWO_FUNCTIONS = """
def {apply}(optimizer_class, params, optimizer_kwargs, register_hook=True):
    for param in params:
        param.__dict__.setdefault("own", []).append(optimizer_class([param], **optimizer_kwargs))
        if register_hook and len(param.own) == 1:
            param.register_post_accumulate_grad_hook(step)

def step(param):
    for optimizer in param.own:
        optimizer.step()
    param.grad = None

def {optimizers}(module):
    return [optimizer for param in module.parameters() for optimizer in getattr(param, "own", [])]
"""

ONLY_TWO_CALLS = """
import functions

class y:
    def apply(self, optimizer_class, params, optimizer_kwargs, register_hook=True):
        functions.apply(optimizer_class, params, optimizer_kwargs, register_hook)

    def optimizers(self, module):
        return functions.optimizers(module)

instance = y()

class whole_model:
    def attach(self, module, assignments):
        for assignment in assignments:
            functions.apply(*assignment)

    optimizers = y.optimizers

class of_torch(y):
    distribution = "torch"

class of_nothing(y):
    distribution = "not-there"

class z:
    pass
"""


@pytest.fixture(autouse=True)
def modules(pytester: pytest.Pytester) -> None:
    torchs = {"apply": "apply_optimizer_in_backward", "optimizers": "get_in_backward_optimizers"}
    pytester.makepyfile(
        functions=TWO_FUNCTIONS.format(apply="apply", optimizers="optimizers"),
        long_names=TWO_FUNCTIONS.format(**torchs),
        private_names=TWO_FUNCTIONS.format(**{call: f"_{name}" for call, name in torchs.items()}),
        everything="import functions, long_names, private_names",
        x=ONLY_TWO_CALLS,
        broken="import nothing_of_that_name",
    )


def test_two_calls_are_enough(suite: Suite) -> None:
    """A class, an instance and plain modules, under the names of torch's functions too, are driven as they are."""
    names = [
        "x:y",
        "x:whole_model",
        "x:instance",
        "everything:functions",
        "everything:long_names",
        "everything:private_names",
    ]
    suite.run(*(f"--implementation={name}" for name in names), chapter="listing")
    assert suite.verdicts() == dict.fromkeys(names, "conformant")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "nope",
            "*unknown implementation 'nope'; registered here: *, optimi, *, reference, reference-handed, torch, *",
        ),
        ("broken:x", "*'broken:x' cannot be imported*No module named 'nothing_of_that_name'. Check the spelling*"),
        ("x:missing", "*'x:missing' cannot be imported*no attribute 'missing'. Check the spelling*"),
        ("", "name what is to be tested: --implementation NAME or *"),
        ("x:z", "*'x:z' (x:z) has no `apply`. Give it apply(*), or attach(*), and optimizers(module)"),
    ],
)
def test_what_cannot_be_driven_is_one_line(suite: Suite, name: str, line: str) -> None:
    result = suite.run(*([f"--implementation={name}"] if name else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {line}"])
    assert not suite.report.exists()


def test_the_record_names_the_version_of_what_is_adapted(suite: Suite) -> None:
    suite.run("--implementation=x:of_torch", "--implementation=reference", "-k", "backward_steps_nothing")
    versions = suite.record()[0]["versions"]
    assert versions == {"x:of_torch": f"torch {version('torch')}", "reference": f"inbackward {version('inbackward')}"}
    result = suite.run("--implementation=x:of_nothing")
    result.stderr.fnmatch_lines("ERROR: *'x:of_nothing' says that it is of distribution 'not-there', which is not *")


DECLARES = """
from inbackward_conformance import OwnOptimizer
from functions import apply, optimizers

{declaration}
"""


@pytest.mark.parametrize(
    ("declaration", "line"),
    [
        ("own_optimizers = ['x']", "own_optimizers = ['x']: expected a list of OwnOptimizer"),
        ("own_optimizers = 3", "own_optimizers = 3: expected a list of OwnOptimizer"),
        ("own_optimizers = None", "own_optimizers = None: expected a list of OwnOptimizer"),
        (
            "own_optimizers = [OwnOptimizer('a:B', lacks=['gruops'])]",
            "ValueError: OwnOptimizer('a:B'): lacks=['gruops']: expected a list, of groups, tensor_lr, *",
        ),
        ("OwnOptimizer('a:B', lacks=[[]])", "ValueError: OwnOptimizer('a:B'): lacks=[[]]: expected a list, of *"),
        ("OwnOptimizer('a:B', variants=3)", "ValueError: OwnOptimizer('a:B'): variants=3: expected a list of dicts*"),
        ("OwnOptimizer(3)", "ValueError: OwnOptimizer(3): expected the name of a class, as 'package.module:Class'*"),
        ("rounding = 1e-6", "rounding = 1e-06: expected a relative size and the reason, as (1e-6, '*')"),
        ("rounding = (2, 'x')", "rounding = (2, 'x'): expected a relative size and the reason, as (1e-6, '*')"),
        ("requires_device = True", "requires_device = True: expected one of '', 'cpu', 'cuda'*"),
    ],
)
def test_what_cannot_be_declared_is_one_line(
    suite: Suite, pytester: pytest.Pytester, declaration: str, line: str
) -> None:
    pytester.makepyfile(declares=DECLARES.format(declaration=declaration))
    result = suite.run("--implementation=declares")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    literal = line.replace("[", "[[]")  # of fnmatch
    result.stderr.fnmatch_lines([f"ERROR: implementation 'declares'*{literal}"])
    assert len([line for line in result.errlines if line]) == 1


def test_what_cannot_be_declared_is_one_line_elsewhere(
    suite: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a script of a recorded failure, and from a test of one's own."""
    pytester.makepyfile(declares=DECLARES.format(declaration="def optimizers(module): return None"))
    suite.run("--implementation=declares", "-k", "plain_module", chapter="listing")
    pytester.makepyfile(declares=DECLARES.format(declaration="rounding = 1e-6"))
    monkeypatch.syspath_prepend(pytester.path)
    with pytest.raises(SystemExit):
        main(["repro", str(suite.report), "listing/plain_module"])
    assert "rounding = 1e-06: expected a relative size and the reason" in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(RunFailed, match=r"\nERROR: .*rounding = 1e-06: expected a relative size"):
        check_implementation("declares")


RETURNS = """
import torch
import functions

class Base:
    def apply(self, *args, **kwargs):
        functions.apply(*args, **kwargs)

    def optimizers(self, module):
        return functions.optimizers(module)

def nothing(*args, **kwargs):
    return None

class OptimizersNone(Base):
    optimizers = nothing

class OptimizersFunctions(Base):
    def optimizers(self, module):
        return [optimizer.step for optimizer in super().optimizers(module)] or [nothing]

class OptimizersDict(Base):
    def optimizers(self, module):
        return {"first": "second"}

class OptimizersOne(Base):
    def optimizers(self, module):
        return torch.optim.SGD(torch.nn.Linear(1, 1).parameters())

class OptimizersGenerator(Base):
    def optimizers(self, module):
        yield from super().optimizers(module)

class Plain:
    def __init__(self, optimizer):
        self.param_groups, self.state, self.step = optimizer.param_groups, optimizer.state, optimizer.step

class OptimizersNoSubclass(Base):
    def optimizers(self, module):
        return tuple(map(Plain, super().optimizers(module)))

class NoRepr:
    def __repr__(self):
        raise ValueError

class OptimizersNoRepr(Base):
    def optimizers(self, module):
        return [NoRepr()]

class Schedule(Base):
    schedule = nothing

class ScheduleOne(Base):
    def schedule(self, module, scheduler_class, **kwargs):
        return scheduler_class(self.optimizers(module)[0], **kwargs)

class StandardOptimizer(Base):
    standard_optimizer = nothing

class FunctionalOptimizer(Base):
    functional_optimizer = nothing

class WrapDDP(Base):
    wrap_ddp = nothing
"""


def told(suite: Suite, names: list[str], *options: str, chapter: str) -> str:
    suite.run(*(f"--implementation=r:{name}" for name in names), *options, chapter=chapter)
    lines = {f"{case['implementation'][2:]} {case['outcome']}: {case['detail']}" for case in suite.cases()}
    return "\n".join(textwrap.fill(line, 110).rstrip() for line in sorted(lines))


def test_what_are_no_optimizers_is_told_in_a_line(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(r=RETURNS)
    names = ["None", "Functions", "Dict", "One", "Generator", "NoSubclass", "NoRepr"]
    assert_expected_inline(
        told(suite, [f"Optimizers{name}" for name in names], "-k", "plain_module", chapter="listing"),
        """\
OptimizersDict fails: optimizers returned {'first': 'second'}: expected a list of optimizers, which have
param_groups and state
OptimizersFunctions fails: optimizers returned [<function nothing>]: expected a list of optimizers, which have
param_groups and state
OptimizersGenerator conforms:
OptimizersNoRepr fails: optimizers returned <list>: expected a list of optimizers, which have param_groups and
state
OptimizersNoSubclass conforms:
OptimizersNone fails: optimizers returned None: expected a list of optimizers, which have param_groups and
state
OptimizersOne fails: optimizers returned one SGD: expected a list of optimizers, which have param_groups and
state""",
    )


def test_what_another_call_returns_is_told_in_a_line(suite: Suite, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(r=RETURNS)
    schedules = told(
        suite, ["Schedule", "ScheduleOne", "StandardOptimizer"], "-k", "started_in_training", chapter="schedule"
    )
    functional = told(suite, ["FunctionalOptimizer"], "-k", "state_dict", chapter="functional")
    wrapped = told(suite, ["WrapDDP"], "--distributed", "-k", "many_buckets", chapter="ddp")
    assert_expected_inline(
        f"{schedules}\n{functional}\n{wrapped}",
        """\
Schedule fails: schedule returned None: expected a list of schedulers, which have step()
ScheduleOne fails: schedule returned one LambdaLR: expected a list of schedulers, which have step()
StandardOptimizer error: standard_optimizer returned None: expected an optimizer, which has param_groups and
state
FunctionalOptimizer fails: functional_optimizer returned None: expected an object that has step or step_param
WrapDDP fails: rank 0: wrap_ddp returned None: expected the wrapped module""",
    )
