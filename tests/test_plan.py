"""Plans are plain data."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from expecttest import assert_expected_inline

from inbackward_conformance import plan
from inbackward_conformance.plan import Assignment, Group, Plan, TensorOption, events
from inbackward_conformance.plan.events import Accumulate, Backward, StepByHand

PLANS = [
    Plan("MLP", (Assignment("SGD", {"lr": 0.1}),), (Backward(),)),
    Plan(
        "Branches",
        (
            Assignment("Adam", {"lr": TensorOption(0.01), "betas": (0.8, 0.9)}, params=("trunk.weight",), hook=False),
            Assignment("SGD", {}, params=(Group(("left.weight",), {"lr": 1.0}),)),
        ),
        (Backward(skip=("left",)), Backward(scale=float("nan")), Backward(scale=float("-inf")), StepByHand()),
        before=(Accumulate(),),
        shared=(("left.weight", "right.weight"),),
        frozen=("left.bias",),
        dtype="float64",
        seed=3,
    ),
]


@pytest.mark.parametrize("example", PLANS, ids=["small", "large"])
def test_a_plan_can_be_printed_and_pickled(example: Plan) -> None:
    assert repr(eval(repr(example), {**vars(events), **vars(plan)})) == repr(example)  # noqa: S307
    assert repr(pickle.loads(pickle.dumps(example))) == repr(example)  # noqa: S301


def test_what_is_at_its_default_is_not_printed() -> None:
    assert_expected_inline(repr(PLANS[0]), """Plan('MLP', (Assignment('SGD', options={'lr': 0.1}),), (Backward(),))""")


def test_a_bare_name_is_no_selection() -> None:
    with pytest.raises(TypeError, match=r"expected ALL or a tuple of parameter names; write \('0.weight',\)"):
        Assignment("SGD", params="0.weight")


@pytest.mark.parametrize(
    "module",
    ["plan.events", "adapters.implementation", "report.terminal", "report.matrix.render", "plugin", "api", "__main__"],
)
def test_what_costs_no_torch(module: str) -> None:
    code = f"import sys, inbackward_conformance.{module}; sys.exit(bool({{'torch', 'hypothesis'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
