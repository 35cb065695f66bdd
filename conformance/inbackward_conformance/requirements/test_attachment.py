"""What may be attached, what is rejected, and when.

Attaching takes what `torch.optim` takes. What it rejects is rejected here as well, by its error or by a clearer one,
and nothing is attached then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.adapters.implementation import Implementation
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
from inbackward_conformance.tensors import describe_difference, same_bits

THREE_STEPS = (Backward(),) * 3
WEIGHTS = ("0.weight", "2.weight", "4.weight")
BIASES = ("0.bias", "2.bias", "4.bias")
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})
ADAM = Assignment("Adam", {"lr": 0.01})
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
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_groups(check: Check, optimizer: str) -> None:
    """Parameter groups keep their own options, the others being those of the call, or are refused."""
    groups = (Group(WEIGHTS, {"lr": 0.03}), Group(BIASES, {"weight_decay": 0.0}))
    check(Plan("MLP", (Assignment(optimizer, {"lr": 0.01, "weight_decay": 0.1}, groups),), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_frozen(check: Check) -> None:
    """Frozen parameters among those attached stay as they are, or are refused; the others train."""
    check(Plan("MLP", (SGD,), THREE_STEPS, frozen=("0.bias", "2.weight")))


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
    check(Plan("MLP", (Assignment(f"{OWN_CLASSES}:SignDescent", {"lr": 0.01}),), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_own_class_with_closure(check: Check) -> None:
    """A class of the user's own whose `step` needs a closure is refused at attachment, if it is.

    Inside backward it is too late: other parameters have been stepped by then.
    """
    check(Plan("MLP", (Assignment(f"{OWN_CLASSES}:LineSearch", {"lr": 0.1}),), THREE_STEPS))


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
    with check.rejected(model, what, as_in=lambda: torch.optim.SGD(choose(model), lr=0.1)):
        implementation.attach(model, [(torch.optim.SGD, choose(model), {"lr": 0.1}, True)])


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
    model = MLP().to(device)
    with check.rejected(model, what, as_in=lambda: given(model.parameters())):
        implementation.attach(model, [(given, model.parameters(), {}, True)])


@pytest.mark.must
def test_optimizer_instance(check: Check, implementation: Implementation, device: str) -> None:
    """An optimizer in the place of its class is rejected."""
    model = MLP().to(device)
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
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
    with check.rejected(model, what, as_in=lambda: torch.optim.SGD(model.parameters(), **options)):
        implementation.attach(model, [(torch.optim.SGD, model.parameters(), options, True)])


def _non_leaf_last(model: nn.Module) -> tuple[Any, list[Tensor]]:
    params = list(model.parameters())
    return torch.optim.SGD, [*params, params[0] * 1.0]


def _bias_for_muon(model: nn.Module) -> tuple[Any, list[Tensor]]:
    return torch.optim.Muon, [model.get_parameter(name) for name in (*WEIGHTS, "4.bias")]


@pytest.mark.must
@pytest.mark.parametrize("choose", [_non_leaf_last, _bias_for_muon], ids=["non-leaf", "Muon"])
def test_failure_in_the_middle(
    check: Check, implementation: Implementation, device: str, choose: Callable[[nn.Module], tuple[Any, list[Tensor]]]
) -> None:
    """Where a later parameter of a list is rejected, nothing is attached to the earlier ones."""
    model = MLP().to(device)
    optimizer_class, params = choose(model)
    with check.rejected(model, f"a list whose last entry {optimizer_class.__name__} rejects"):
        implementation.attach(model, [(optimizer_class, params, {"lr": 0.1}, True)])


@pytest.mark.must
def test_after_a_failure(check: Check) -> None:
    """After a rejected attachment a correct one works, as if the first had not been."""
    rejected = Assignment("Muon", {"lr": 0.02}, (*WEIGHTS, "4.bias"))
    check(Plan("MLP", (SGD,), THREE_STEPS, before=(FailToAttach(rejected),)))


@pytest.mark.must
def test_options_of_the_caller(implementation: Implementation, device: str) -> None:
    """The caller's dict of options is not changed, and what the caller does with it later changes nothing."""
    model = MLP().to(device)
    ordinary_model = copy.deepcopy(model)
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9}
    ordinary = implementation.standard_optimizer(torch.optim.SGD, ordinary_model.parameters(), dict(options))
    implementation.attach(model, [(torch.optim.SGD, model.parameters(), options, True)])
    assert options == {"lr": 0.1, "momentum": 0.9}, f"attaching has changed the caller's options to {options}"
    options.update(lr=1.0, weight_decay=0.5)
    for _ in range(2):
        implementation.backward(model(torch.ones(2, 4, device=device)).sum(), model)
        ordinary_model(torch.ones(2, 4, device=device)).sum().backward()
        ordinary.step()
        ordinary.zero_grad()
    assert options == {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.5}, f"training has changed them to {options}"
    for (name, param), expected in zip(model.named_parameters(), ordinary_model.parameters(), strict=True):
        assert same_bits(expected, param), (
            f"{name} follows what the caller did to its dict of options after attachment: "
            f"{describe_difference(expected, param)}"
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
