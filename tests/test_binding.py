"""What a plan needs of an optimizer is bound to a class: torch's, or one of the implementation's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim import Optimizer

from inbackward_conformance import NotOffered, OwnOptimizer
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind, bind_plan
from inbackward_conformance.outcome import NotRun
from inbackward_conformance.plan import ALL, Assignment, Group, Need, Plan, TensorOption
from inbackward_conformance.plan.events import (
    AttachMore,
    Backward,
    Cast,
    Event,
    Scheduler,
    SetOption,
    StartSchedule,
)
from inbackward_conformance.plan.need import (
    ANOTHER_CLASS,
    EXACTLY,
    MOVES_AT_ZERO,
    NO_STATE,
    NOT_COMPARED,
    SAME_CLASS,
    SCHEDULED,
    STATE,
)
from mutants.naive import Naive

if TYPE_CHECKING:
    from torch import Tensor


class Plain(Optimizer):
    """No state; its learning rate is called `rate`."""

    def __init__(self, params: Any, rate: float = 0.1) -> None:
        super().__init__(params, {"rate": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.update(param, param.grad, group)

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        param.sub_(grad, alpha=group["rate"])


class Sign(Plain):
    """A state, and decay as an option."""

    def __init__(self, params: Any, lr: float = 0.01, decay: float = 0.0) -> None:
        Optimizer.__init__(self, params, {"lr": lr, "decay": decay})

    def update(self, param: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        count = self.state[param]["count"] = self.state[param].get("count", 0) + 1
        param.mul_(1 - group["lr"] * group["decay"]).sub_(grad.sign(), alpha=group["lr"] / count)


def sign(params: Any, lr: float = 0.01) -> Sign:
    """Do for a class."""
    return Sign(params, lr)


def not_optimizer(*_: object) -> object:
    """Return something else."""
    return object()


PLAIN = OwnOptimizer("test_binding:Plain", {"rate": 0.25}, lr="rate")
SIGN = OwnOptimizer("test_binding:Sign", {"lr": 0.01}, variants=[{"decay": 0.1}])
ANY_OPTIMIZER = Assignment("SGD", {"lr": 0.1, "momentum": 0.9})


def implementation(*own: OwnOptimizer) -> Implementation:
    class Own(Naive):
        own_optimizers = own

    return Implementation(Own)


def bound(
    own: Sequence[OwnOptimizer], *needs: Need, events: tuple[Event, ...] = (Backward(),), **plan: Any
) -> list[tuple[str, dict[str, Any]]]:
    """Return the classes and options that assignments with these needs are bound to."""
    assignments = tuple(Assignment("SGD", {"lr": 0.1}, need=need) for need in needs)
    result = bind_plan(Plan("MLP", assignments, events, **plan), implementation(*own))
    return [(each.optimizer.removeprefix("test_binding:"), each.options) for each in result.assignments]


def test_an_implementation_that_takes_any_class_gets_what_the_plan_names() -> None:
    plan = Plan("MLP", (Assignment("SGD", {"lr": 0.1}, need=STATE), ANY_OPTIMIZER), (Backward(),))
    result = bind_plan(plan, Implementation(Naive))
    assert repr(result) == repr(Plan("MLP", (Assignment("SGD", {"lr": 0.1}), ANY_OPTIMIZER), (Backward(),)))


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (Need(), ("Sign", {"lr": 0.01, "decay": 0.1})),
        (STATE, ("Sign", {"lr": 0.01, "decay": 0.1})),
        (NO_STATE, ("Plain", {"rate": 0.25})),
        (MOVES_AT_ZERO, ("Sign", {"lr": 0.01, "decay": 0.1})),
        (Need(proportional=True), ("Plain", {"rate": 0.25})),
        (SCHEDULED, ("Sign", {"lr": 0.01, "decay": 0.1})),
        (Need(number=0), ("Plain", {"rate": 0.25})),
        (Need(number=4), ("Sign", {"lr": 0.01})),
    ],
    ids=repr,
)
def test_a_need_is_bound_to_the_class_that_meets_it(need: Need, expected: tuple[str, dict[str, Any]]) -> None:
    """What was not declared is found out by steps of the standard loop; the class that keeps most comes first."""
    assert bound([PLAIN, SIGN], need) == [expected]


def test_optimizers_of_one_plan_differ_where_they_can() -> None:
    assert bound([PLAIN, SIGN], Need(), Need()) == [("Sign", {"lr": 0.01, "decay": 0.1}), ("Plain", {"rate": 0.25})]
    assert bound([SIGN], Need(), SAME_CLASS) == [("Sign", {"lr": 0.01, "decay": 0.1}), ("Sign", {"lr": 0.01})]
    assert bound([PLAIN, SIGN], STATE, ANOTHER_CLASS)[1] == ("Plain", {"rate": 0.25})


def test_one_set_of_options_becomes_several_by_its_learning_rate() -> None:
    rates = [options["rate"] for _, options in bound([PLAIN], Need(), SAME_CLASS, SAME_CLASS)]
    assert rates == [0.25, 0.125, 0.0625]


def test_a_later_assignment_is_bound_too() -> None:
    later = AttachMore(Assignment("Adam", {"lr": 0.01}, need=ANOTHER_CLASS))
    plan = bind_plan(Plan("MLP", (Assignment("SGD"),), (Backward(), later)), implementation(PLAIN, SIGN))
    assert plan.events[1] == AttachMore(Assignment("test_binding:Plain", {"rate": 0.25}))


@pytest.mark.parametrize(
    ("own", "need", "reason"),
    [
        ([PLAIN], STATE, r"none of its own optimizers \(Plain\) keeps a state"),
        ([SIGN], NO_STATE, r"none of its own optimizers \(Sign\) keeps no state"),
        ([PLAIN], MOVES_AT_ZERO, r"none .* \(Plain\) moves a parameter whose gradient is zero"),
        ([SIGN], Need(proportional=True), r"none .* \(Sign\) moves a parameter in proportion to its gradient"),
        ([PLAIN], SCHEDULED, r"none .* \(Plain\) has a learning rate that torch's schedulers know"),
        ([PLAIN], EXACTLY, "for implementations that take any optimizer class, such as SGD"),
    ],
    ids=str,
)
def test_a_need_that_no_class_meets_is_not_offered(own: list[OwnOptimizer], need: Need, reason: str) -> None:
    with pytest.raises(NotOffered, match=reason):
        bound(own, need)


def test_another_class_takes_another_class() -> None:
    with pytest.raises(NotOffered, match="another optimizer class than Sign is needed, and no other is declared"):
        bound([SIGN], Need(), ANOTHER_CLASS)


@pytest.mark.parametrize(
    ("lacking", "plan", "words"),
    [
        ("zero_dim", Plan("OddShapes", (ANY_OPTIMIZER,), ()), "0-dim parameters"),
        ("complex", Plan("ComplexLinear", (ANY_OPTIMIZER,), ()), "complex parameters"),
        ("sparse", Plan("SparseEmbedding", (ANY_OPTIMIZER,), ()), "sparse gradients"),
        ("low_precision", Plan("MLP", (ANY_OPTIMIZER,), (), dtype="bfloat16"), "parameters in 16 bits"),
        ("low_precision", Plan("MLP", (ANY_OPTIMIZER,), (Cast("float16"),)), "parameters in 16 bits"),
        ("groups", Plan("MLP", (Assignment("SGD", params=(Group(("0.weight",)),)),), ()), "parameter groups"),
        ("tensor_lr", Plan("MLP", (Assignment("SGD", {"lr": TensorOption(0.1)}),), ()), "a tensor as learning rate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_class_lacks_is_not_asked_of_it(lacking: str, plan: Plan, words: str) -> None:
    lacks = OwnOptimizer("test_binding:Sign", lacks=[lacking])
    with pytest.raises(NotOffered, match=rf"none of its own optimizers \(Sign\) supports {words}"):
        bind_plan(plan, implementation(lacks))
    assert bind_plan(Plan("MLP", (ANY_OPTIMIZER,), ()), implementation(lacks)).assignments
    assert bind_plan(plan, implementation(lacks, PLAIN)).assignments[0].optimizer == "test_binding:Plain"


def test_the_learning_rate_goes_by_the_name_that_the_class_gives_it() -> None:
    """In groups, in tensors, and where a plan sets it."""
    groups = (Group(("0.weight",), {"lr": 0.5, "extra": 1}),)
    assignment = Assignment("SGD", {"lr": TensorOption(0.1)}, groups)
    plan = bind_plan(Plan("MLP", (assignment,), (SetOption("lr", 0.0), SetOption("extra", 2))), implementation(PLAIN))
    assert plan.assignments[0].options == {"rate": TensorOption(0.25)}
    assert plan.assignments[0].params == (Group(("0.weight",), {"rate": 0.5, "extra": 1}),)
    assert plan.events == (SetOption("rate", 0.0), SetOption("extra", 2))
    with pytest.raises(NotOffered, match="torch's schedulers know no learning rate of the name 'rate'"):
        bound([PLAIN], Need(), events=(StartSchedule(Scheduler("StepLR", {"step_size": 1})),))
    with pytest.raises(NotOffered, match="call their learning rates differently: lr, rate"):
        bound([PLAIN, SIGN], STATE, ANOTHER_CLASS, events=(SetOption("lr", 0.0),))


def test_what_draws_random_numbers_is_compared_with_nothing() -> None:
    drawing = OwnOptimizer("test_binding:Sign", draws_random_numbers=True)
    with pytest.raises(NotRun, match="a step of Sign draws random numbers, and parameters step in another order"):
        bound([drawing], Need())
    assert bound([drawing], NOT_COMPARED) == [("Sign", {})]
    assert bound([drawing, PLAIN], Need()) == [("Plain", {"rate": 0.25})]


def test_a_declared_class_may_be_torchs_own_or_a_function() -> None:
    assert bound([OwnOptimizer("AdamW", {"lr": 0.5})], STATE) == [("AdamW", {"lr": 0.5})]
    assert bound([OwnOptimizer("test_binding:sign", {"lr": 0.5})], STATE) == [("sign", {"lr": 0.5})]
    chosen, options = bind(implementation(OwnOptimizer("test_binding:sign", {"lr": 0.5})), ANY_OPTIMIZER)
    assert (chosen, options) == (sign, {"lr": 0.5})


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (OwnOptimizer("test_binding:Absent"), "test_binding:Absent with options {} does not train two parameters"),
        (
            OwnOptimizer("test_binding:Sign", {"speed": 1}),
            "does not train two parameters in the standard loop: TypeError",
        ),
        (
            OwnOptimizer("test_binding:Plain"),
            "its param_groups have no 'lr'; name its learning rate by `lr`, of 'rate'",
        ),
        (OwnOptimizer("test_binding:not_optimizer"), "as an optimizer, it needs step, zero_grad, param_groups, state"),
        (OwnOptimizer("test_binding:Sign", {"lr": 0.0}), "{'lr': 0.0} moves no parameter in two steps"),
    ],
    ids=["absent", "option", "lr", "no-optimizer", "at-rest"],
)
def test_an_entry_that_cannot_be_used_is_told_with_the_remedy(entry: OwnOptimizer, what: str) -> None:
    with pytest.raises(RuntimeError, match="correct its entry in `own_optimizers`") as error:
        bound([entry], Need())
    assert what in str(error.value)


def test_finding_out_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    bound([OwnOptimizer("test_binding:Sign")], Need())
    assert torch.equal(before, torch.get_rng_state())


def test_params_and_hook_stay() -> None:
    plan = Plan("MLP", (Assignment("SGD", params=("0.bias",), hook=False), Assignment("SGD", params=ALL)), ())
    result = bind_plan(plan, implementation(SIGN))
    assert [(each.params, each.hook) for each in result.assignments] == [(("0.bias",), False), (ALL, True)]
