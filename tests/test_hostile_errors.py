"""Whatever an implementation raises, the case `fails`, told by the type of the error, and the run goes on."""

from __future__ import annotations

import json

import pytest
from expecttest import assert_expected_inline

from conftest import Suite

ERRORS = """
import dataclasses
import sys
import torch
import mutants.naive
from mutants.of_ddp import AfterBackward
if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

class Unprintable(RuntimeError):
    def __str__(self):
        raise KeyError("no message")
    __repr__ = __str__

class NoText(ValueError):
    def __str__(self):
        return 3

class Incomparable(ValueError):
    def __eq__(self, other):
        raise RuntimeError("never compared")
    __bool__ = __hash__ = __len__ = __eq__

class Closed(ValueError):
    def __setattr__(self, name, value):
        raise TypeError("never changed")
    __getattr__ = __delattr__ = __setattr__

@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    why: str

class Stop(KeyboardInterrupt):
    pass

class Leave(BaseException):
    pass

ERRORS = {
    "Unprintable": lambda: Unprintable("x"),
    "NoText": lambda: NoText("x"),
    "Incomparable": lambda: Incomparable("x"),
    "Closed": lambda: Closed("x"),
    "Frozen": lambda: Frozen("x"),
    "Stop": lambda: Stop("x"),
    "Leave": lambda: Leave("x"),
    "SystemExit": lambda: SystemExit(3),
    "StopIteration": lambda: StopIteration("x"),
    "OSError": lambda: OSError("\\udcff"),
    "ExceptionGroup": lambda: ExceptionGroup("several", [Unprintable("x"), NoText("x")]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [Stop("x"), Leave("x")]),
}

class Sound(mutants.naive.Naive):
    pass

def raising(name, call):
    def body(self, *args, **kwargs):
        raise ERRORS[name]()
    return type(f"{name}_in_{call}", (mutants.naive.Naive,), {call: body})

for name in ERRORS:
    for call in ("__init__", "apply", "optimizers", "step"):
        globals()[f"{name}_in_{call}"] = raising(name, call)

class Ordinarily(AfterBackward):
    def backward(self, loss, module):
        super().backward(loss, module)
        raise ERRORS[type(self).__name__.partition("_")[0]]()

class Unprintable_on_ranks(Ordinarily): pass
class SystemExit_on_ranks(Ordinarily): pass
class Stop_on_ranks(Ordinarily): pass
class Leave_on_ranks(Ordinarily): pass
"""

NAMES = [
    "Unprintable",
    "NoText",
    "Incomparable",
    "Closed",
    "Frozen",
    "Stop",
    "Leave",
    "SystemExit",
    "StopIteration",
    "OSError",
    "ExceptionGroup",
    "BaseExceptionGroup",
]


@pytest.fixture(autouse=True)
def module(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(x=ERRORS)


REQUIREMENTS = {
    "__init__": ["listing/order"],
    "apply": ["attachment/frozen", "gradients/modes_and_random_state", "properties/structures"],
    "optimizers": ["listing/order", "no_hook/stepped_by_hand", "attachment/bad_parameters", "properties/structures"],
    "step": ["gradients/freed", "gradients/modes_and_random_state", "lifetime/rounds"],
}
"""Some that run a plan, some that run none, some of drawn plans."""


@pytest.mark.parametrize("call", REQUIREMENTS)
def test_whatever_is_raised(suite: Suite, pytester: pytest.Pytester, call: str) -> None:
    tested = [*(f"x:{name}_in_{call}" for name in NAMES), "x:Sound"]
    selected = {name: {requirement: [""] for requirement in REQUIREMENTS[call]} for name in tested}
    file = pytester.makefile(".json", selected=json.dumps(selected))
    named = [f"--implementation={name}" for name in tested]
    result = suite.run(*named, "--conformance-select", str(file), chapter="")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    cases = suite.cases()
    assert len(cases) == len(tested) * len(REQUIREMENTS[call])
    for case in cases:
        name = case["implementation"].removeprefix("x:").partition("_")[0]
        if name != "Sound":
            assert case["outcome"] in {"fails", "refuses"}, case
            assert f"{name}: " in case["detail"]


def test_whatever_is_raised_on_ranks(suite: Suite) -> None:
    """The ranks stay up: a SystemExit ends none of them."""
    names = ["Unprintable", "SystemExit", "Stop", "Leave"]
    named = [f"--implementation=x:{name}_on_ranks" for name in names]
    suite.run(*named, "--distributed", "-k", "many_buckets", chapter="ddp")
    details = {case["implementation"]: f"{case['outcome']}: {case['detail']}" for case in suite.cases()}
    assert_expected_inline(
        "\n".join(details.values()),
        """\
fails: rank 0: an accident, not a refusal: event 3, Backward() raises Unprintable: (its message cannot be read)
fails: rank 0: an accident, not a refusal: event 3, Backward() raises SystemExit: 3
fails: rank 0: an accident, not a refusal: event 3, Backward() raises Stop: x
fails: rank 0: an accident, not a refusal: event 3, Backward() raises Leave: x""",
    )
