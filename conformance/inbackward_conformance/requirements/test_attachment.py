"""What may be attached, what is rejected, and when.

Attaching takes what `torch.optim` takes. What it rejects is rejected here as well, by its error or by a clearer one,
and nothing is attached then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import ALL, Assignment, Group, Plan
from inbackward_conformance.plan.events import (
    AttachMore,
    Backward,
    BackwardThrough,
    FailToAttach,
    Forward,
    Grow,
    Thaw,
    TrainOrdinarily,
)
from inbackward_conformance.plan.need import EXACTLY, NOT_COMPARED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.tensors import close, describe_difference, same_bits

THREE_STEPS = (Backward(),) * 3
WEIGHTS = ("0.weight", "2.weight", "4.weight")
BIASES = ("0.bias", "2.bias", "4.bias")
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})
ADAM = Assignment("Adam", {"lr": 0.01})
MOMENTUM = Assignment("SGD", {"lr": 0.1, "momentum": 0.9})
PLAIN_SGD = Assignment("SGD", {"lr": 0.1}, need=NOT_COMPARED)
DEFAULT_SGD = Assignment("SGD", need=NOT_COMPARED)
ANY_CLASS = Assignment("SGD", {"lr": 0.1}, need=EXACTLY)
MUON = Assignment("Muon", {"lr": 0.1}, need=EXACTLY)
OWN_CLASSES = "inbackward_conformance.catalogue.custom_optimizers"


@pytest.mark.must
@pytest.mark.parametrize("params", [ALL, (*BIASES, *WEIGHTS)], ids=["generator", "list"])
def test_iterables(check: Check, params: Any) -> None:
    """A generator, which can be read once, attaches as a list does, in whatever order it gives the parameters."""
    check(Plan("MLP", (Assignment("SGD", {"lr": 0.05, "momentum": 0.9}, params),), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_named_parameters(check: Check) -> None:
    """`model.named_parameters()` attaches as `model.parameters()` does, or is refused."""
    check(Plan("MLP", (Assignment("Adam", {"lr": 0.01}, named=True),), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
@optimizers("assignment", [Assignment(name, {"lr": 0.01, "weight_decay": 0.1}) for name in ("SGD", "AdamW")])
def test_groups(check: Check, assignment: Assignment) -> None:
    """Parameter groups keep their own options, the others being those of the call, or are refused."""
    groups = (Group(WEIGHTS, {"lr": 0.03}), Group(BIASES, {"weight_decay": 0.0}))
    check(Plan("MLP", (replace(assignment, params=groups),), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
@pytest.mark.parametrize(
    ("model", "frozen"), [("MLP", ("0.bias", "2.weight")), ("QuantizedBase", ())], ids=["floats", "integers"]
)
def test_frozen(check: Check, model: str, frozen: tuple[str, ...]) -> None:
    """Frozen parameters among those attached, also of integers, stay as they are, or are refused; the others train."""
    check(Plan(model, (SGD,), THREE_STEPS, frozen=frozen))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_thawed(check: Check) -> None:
    """A parameter that is frozen when it is attached trains from when it is thawed, or is refused at attachment.

    An ordinary optimizer holds it from the start. Models are unfrozen layer by layer that way.
    """
    frozen = ("0.weight", "0.bias")
    check(Plan("MLP", (ADAM,), (*THREE_STEPS, Thaw(frozen), *THREE_STEPS), frozen=frozen))


@pytest.mark.must
def test_own_class(check: Check) -> None:
    """An optimizer class of the user's own trains as in the standard loop."""
    check(Plan("MLP", (Assignment(f"{OWN_CLASSES}:SignDescent", {"lr": 0.01}, need=EXACTLY),), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
@pytest.mark.parametrize("name", ["LineSearch", "LineSearchByDefault"])
def test_own_class_with_closure(check: Check, name: str) -> None:
    """A class of the user's own whose `step` needs a closure is refused at attachment, if it is.

    Inside backward it is too late: other parameters have been stepped by then. The signature may give the closure a
    default, and the step raise without one.
    """
    check(Plan("MLP", (Assignment(f"{OWN_CLASSES}:{name}", {"lr": 0.1}, need=EXACTLY),), THREE_STEPS))


def _non_leaf(model: nn.Module) -> Any:
    return [param * 1.0 for param in model.parameters()]


def _bare(model: nn.Module) -> Any:
    return next(model.parameters())


def _nothing(_: nn.Module) -> Any:
    return iter(())


def _names(model: nn.Module) -> Any:
    return [name for name, _ in model.named_parameters()]


def _in_two_groups(model: nn.Module) -> Any:
    return [{"params": list(model.parameters())}, {"params": [next(model.parameters())]}]


@pytest.mark.must
@pytest.mark.parametrize(
    ("choose", "what"),
    [
        (_non_leaf, "a list of non-leaf tensors"),
        (_bare, "a bare tensor in the place of a list"),
        (_nothing, "an empty list of parameters"),
        (_names, "a list of strings"),
        (_in_two_groups, "a parameter in two groups"),
    ],
    ids=["non-leaf", "bare-tensor", "empty", "strings", "in-two-groups"],
)
def test_bad_parameters(
    check: Check, implementation: Implementation, device: str, choose: Callable[[nn.Module], Any], what: str
) -> None:
    """What `torch.optim` rejects as parameters is rejected, and nothing is attached."""
    model = MLP().to(device)
    optimizer_class, options = bind(implementation, PLAIN_SGD)

    def as_in_torch() -> object:
        return implementation.standard_optimizer(optimizer_class, choose(model), options)

    with check.rejected(model, what, as_in=as_in_torch):
        implementation.attach(model, [(optimizer_class, choose(model), options, True)])


@pytest.mark.must
@pytest.mark.parametrize(
    ("given", "what"),
    [
        (nn.Linear, "a module class in the place of an optimizer class"),
        (nn.ParameterList, "a class that takes parameters and is no optimizer class"),
        ("SGD", "a string in the place of an optimizer class"),
    ],
    ids=["module-class", "container-class", "string"],
)
def test_no_optimizer_class(check: Check, implementation: Implementation, device: str, given: Any, what: str) -> None:
    """Something that is no optimizer class is rejected when it is attached, not when it is stepped."""
    bind(implementation, ANY_CLASS)
    model = MLP().to(device)
    with check.rejected(model, what, as_in=lambda: given(model.parameters())):
        implementation.attach(model, [(given, model.parameters(), {}, True)])


@pytest.mark.must
def test_optimizer_instance(check: Check, implementation: Implementation, device: str) -> None:
    """An optimizer in the place of its class is rejected."""
    model = MLP().to(device)
    optimizer_class, options = bind(implementation, ANY_CLASS)
    optimizer: Any = optimizer_class(model.parameters(), **options)
    with check.rejected(model, "an optimizer in the place of its class", as_in=lambda: optimizer(model.parameters())):
        implementation.attach(model, [(optimizer, model.parameters(), {}, True)])


@pytest.mark.must
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"lr": -1.0}, "a negative lr"),
        ({"learning_rate": 0.1}, "an option that the class does not know"),
        ({"lr": 0.1, "nesterov": True}, "options that contradict each other"),
    ],
    ids=["value", "name", "combination"],
)
def test_bad_options(
    check: Check, implementation: Implementation, device: str, options: dict[str, Any], what: str
) -> None:
    """Options that the class rejects are rejected when they are attached."""
    model = MLP().to(device)
    optimizer_class, sound_options = bind(implementation, DEFAULT_SGD)
    rejected_options = {**sound_options, **options}

    def as_in_torch() -> object:
        return implementation.standard_optimizer(optimizer_class, model.parameters(), rejected_options)

    with check.rejected(model, what, as_in=as_in_torch):
        implementation.attach(model, [(optimizer_class, model.parameters(), rejected_options, True)])


def _non_leaf_last(model: nn.Module) -> list[Tensor]:
    params = list(model.parameters())
    return [*params, params[0] * 1.0]


def _bias_last(model: nn.Module) -> list[Tensor]:
    return [model.get_parameter(name) for name in (*WEIGHTS, "4.bias")]


@pytest.mark.must
@pytest.mark.parametrize(
    ("choose", "assignment"), [(_non_leaf_last, PLAIN_SGD), (_bias_last, MUON)], ids=["non-leaf", "Muon"]
)
def test_failure_in_the_middle(
    check: Check,
    implementation: Implementation,
    device: str,
    choose: Callable[[nn.Module], list[Tensor]],
    assignment: Assignment,
) -> None:
    """Where a later parameter of a list is rejected, nothing is attached to the earlier ones."""
    model = MLP().to(device)
    optimizer_class, options = bind(implementation, assignment)
    params = choose(model)

    def as_in_torch() -> object:
        return implementation.standard_optimizer(optimizer_class, params, options)

    with check.rejected(model, f"a list whose last entry {optimizer_class.__name__} rejects", as_in=as_in_torch):
        implementation.attach(model, [(optimizer_class, params, options, True)])


@pytest.mark.must
def test_after_a_failure(check: Check) -> None:
    """After a rejected attachment a correct one works, as if the first had not been."""
    rejected = Assignment("Muon", {"lr": 0.02}, (*WEIGHTS, "4.bias"), need=EXACTLY)
    check(Plan("MLP", (SGD,), THREE_STEPS, before=(FailToAttach(rejected),)))


@pytest.mark.must
def test_options_of_the_caller(implementation: Implementation, device: str) -> None:
    """The caller's dict of options is not changed, and what the caller does with it later changes nothing."""
    optimizer_class, given = bind(implementation, MOMENTUM)
    models = [MLP().to(device)]
    models += [copy.deepcopy(models[0]) for _ in range(2)]
    changed_by_caller, left_alone, ordinary_model = models
    ordinary = implementation.standard_optimizer(optimizer_class, ordinary_model.parameters(), dict(given))
    options = dict(given)
    for model, passed in ((changed_by_caller, options), (left_alone, dict(given))):
        implementation.attach(model, [(optimizer_class, model.parameters(), passed, True)])
    assert options == given, f"attaching has changed the caller's options to {options}"
    changes = {"lr": 1.0, "weight_decay": 0.5}
    options.update(changes)
    features = torch.ones(2, 4, device=device)
    for _ in range(2):
        for model in (changed_by_caller, left_alone):
            implementation.backward(model(features).sum(), model)
        ordinary_model(features).sum().backward()
        ordinary.step()
        ordinary.zero_grad()
    assert options == {**given, **changes}, f"training has changed them to {options}"
    for (name, param), control, expected in zip(
        changed_by_caller.named_parameters(), left_alone.parameters(), ordinary_model.parameters(), strict=True
    ):
        if close(expected, param, implementation.declared.rounding.size):
            continue
        how = describe_difference(expected, param)
        assert same_bits(control, param), (
            f"{name} follows what the caller did to its dict of options after attachment: {how}"
        )
        raise AssertionError(
            f"{name} differs from the standard loop, whether or not the caller changes its dict of options: {how}"
        )


@pytest.mark.must
def test_after_training(check: Check) -> None:
    """A model that another optimizer has trained before is attached to as a fresh one is."""
    check(Plan("MLP", (ADAM,), THREE_STEPS, before=(TrainOrdinarily(),) * 2))


@pytest.mark.must
@pytest.mark.may_refuse
def test_between_forward_and_backward(check: Check) -> None:
    """Optimizers that are attached between a forward and its backward step in that backward, or it is refused."""
    check(Plan("MLP", (SGD,), (BackwardThrough(), *THREE_STEPS), before=(Forward(),)))


@pytest.mark.must
def test_second_optimizer_later(check: Check) -> None:
    """An optimizer attached in the middle of training steps from then on, after the first, whose state is kept."""
    second = AttachMore(Assignment("SGD", {"lr": 0.02, "weight_decay": 0.1}, WEIGHTS))
    check(Plan("MLP", (ADAM,), (*THREE_STEPS, second, *THREE_STEPS)))


@pytest.mark.must
def test_extended_model(check: Check) -> None:
    """Parameters that a model gets later are left alone, their gradients kept, until they are attached too."""
    of_new_layer = AttachMore(Assignment("SGD", {"lr": 0.1, "momentum": 0.9}, ("layers.2.weight", "layers.2.bias")))
    check(Plan("Growing", (ADAM,), (Backward(), Grow(), Backward(), Backward(), of_new_layer, *THREE_STEPS)))
