"""Plans are plain data."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys

import pytest
import torch
from expecttest import assert_expected_inline

from inbackward_conformance import plan
from inbackward_conformance.plan import Assignment, Group, Plan, Ranks, TensorOption, events
from inbackward_conformance.plan.assignment import WITHOUT_FOREACH
from inbackward_conformance.plan.events import Accumulate, Backward, LoadSharded, StepByHand

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
    ("ranks", "mesh"),
    [
        (Ranks(2), {"data": 32}),
        (Ranks(3, tolerance=1e-6), {"data": 48}),
        (Ranks(4, replicate=2), {"replicate": 2, "data": 32}),
        (Ranks(4, tensor=2), {"data": 32, "tensor": 2}),
        (Ranks(1), {"data": 1}),
        (Ranks(2, fixed=True), {"data": 2}),
    ],
    ids=repr,
)
def test_a_plan_scales_by_its_world_size(ranks: Ranks, mesh: dict[str, int]) -> None:
    """Except where it trains without peers, or says that the number is fixed."""
    scaled = Plan("MLP", (), (), ranks=ranks).scaled(16)
    assert scaled.ranks
    assert scaled.ranks.mesh == mesh
    assert scaled.ranks.tolerance == ranks.tolerance


def test_what_it_loads_scales_with_a_plan() -> None:
    load = LoadSharded("folder", Ranks(2))
    plan = Plan("MLP", (), (load, Backward()), ranks=Ranks(4)).scaled(16)
    assert plan.events == (LoadSharded("folder", Ranks(32)), Backward())
    assert plan.ranks == Ranks(64)


def test_a_plan_without_ranks_does_not_scale() -> None:
    assert PLANS[0].scaled(16) == PLANS[0]


@pytest.mark.parametrize(("world_size", "tolerance"), [(1, 0.0), (2, 0.0), (3, 1e-6), (32, 1e-6)])
def test_a_tolerance_is_for_three_ranks_and_more(world_size: int, tolerance: float) -> None:
    assert Plan("MLP", (), (), ranks=Ranks(world_size, tolerance=1e-6)).tolerance == tolerance


@pytest.mark.parametrize(
    "module",
    ["plan.events", "adapters.implementation", "report.terminal", "report.matrix.render", "plugin", "api", "__main__"],
)
def test_what_costs_no_torch(module: str) -> None:
    code = f"import sys, inbackward_conformance.{module}; sys.exit(bool({{'torch', 'hypothesis'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("optimizer", ["LBFGS", "SparseAdam", "Muon", "some.package:Own"])
def test_a_class_without_foreach_is_not_given_it(optimizer: str) -> None:
    """An implementation may bring a class of its own, which a case of a requirement names."""
    assignment = Assignment(optimizer, {"lr": 0.1})
    assert assignment.parameter_by_parameter() == assignment


def test_the_classes_without_foreach_are_those_of_torch() -> None:
    classes = [
        each for each in vars(torch.optim).values() if inspect.isclass(each) and each is not torch.optim.Optimizer
    ]
    without = {each.__name__ for each in classes if "foreach" not in inspect.signature(each).parameters}
    assert without == WITHOUT_FOREACH
    stepped = Assignment("AdamW", {"lr": 0.1, "fused": True}).parameter_by_parameter()
    assert stepped.options == {"lr": 0.1, "foreach": False}
