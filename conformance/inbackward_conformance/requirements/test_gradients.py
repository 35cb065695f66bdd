"""What happens to gradients: where they come from, what they may be, and that they are gone afterwards."""

from __future__ import annotations

import copy
import functools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP, LayerUsedTwice
from inbackward_conformance.checking.check import Check
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import (
    Accumulate,
    Backward,
    BackwardThrough,
    ClipGradients,
    ComputeGradients,
    DropGradients,
    Forward,
    StepAnother,
)
from inbackward_conformance.plan.need import MOVES_AT_ZERO
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.tensors import close, describe_difference
from inbackward_conformance.training.global_state import torch_settings

SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
PLAIN_SGD = Assignment("SGD", {"lr": 0.1})
ADAM = Assignment("Adam", {"lr": 0.1})

with_both = optimizers("assignment", [SGD, ADAMW])
with_hooks = pytest.mark.parametrize("by", ["register_hook", "register_post_accumulate_grad_hook"])
around = pytest.mark.parametrize("when", ["before", "after"])


@pytest.mark.must
@with_both
def test_freed(check: Check, assignment: Assignment) -> None:
    """`.grad` of every attached parameter is None after backward."""
    check(Plan("MLP", (assignment,), (Backward(),) * 3))


@pytest.mark.must
@with_both
def test_another_optimizer(check: Check, assignment: Assignment) -> None:
    """Another optimizer over the same parameters, stepped after backward, finds nothing to do."""
    check(Plan("MLP", (assignment,), (Backward(), StepAnother()) * 3))


@pytest.mark.must
@with_both
def test_from_before(check: Check, assignment: Assignment) -> None:
    """A gradient from before attachment counts where backward reaches the parameter: both are added, then stepped."""
    check(Plan("MLP", (assignment,), (Backward(),) * 3, before=(Accumulate(),)))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
@with_both
def test_from_before_unreached(check: Check, assignment: Assignment) -> None:
    """A gradient from before attachment on a parameter that the next backward does not reach is stepped, or refused.

    The standard loop steps every parameter that holds a gradient.
    """
    events = (Backward(skip=("left",)), Backward(), Backward())
    check(Plan("Branches", (assignment,), events, before=(Accumulate(),)))


@pytest.mark.must
@with_both
def test_zero(check: Check, assignment: Assignment) -> None:
    """A gradient of zeros is a gradient: momentum and weight decay move the parameter."""
    check(Plan("MLP", (replace(assignment, need=MOVES_AT_ZERO),), (Backward(), Backward(scale=0.0), Backward())))


@pytest.mark.must
@pytest.mark.parametrize("scale", [float("inf"), float("nan")], ids=["inf", "nan"])
@with_both
def test_non_finite(check: Check, assignment: Assignment, scale: float) -> None:
    """A non-finite gradient is stepped as in the standard loop: neither skipped nor mended."""
    check(Plan("MLP", (assignment,), (Backward(), Backward(scale=scale), Backward())))


@pytest.mark.must
@with_both
def test_unused_parameter(check: Check, assignment: Assignment) -> None:
    """An unused parameter stays untouched by momentum and weight decay, while its neighbours step."""
    events = (Backward(), Backward(skip=("right",)), Backward(skip=("right",)), Backward())
    check(Plan("Branches", (assignment,), events))


@pytest.mark.must
@pytest.mark.parametrize("by", ["torch.autograd.grad", "torch.func.grad"])
def test_computed_alone(check: Check, by: str) -> None:
    """Gradients that are computed by `torch.autograd.grad` or `torch.func.grad` step nothing and are left nowhere."""
    check(Plan("MLP", (SGD,), (Backward(), ComputeGradients(by), Backward())))


@pytest.mark.must
def test_inputs(check: Check) -> None:
    """`backward(inputs=…)` steps just those parameters."""
    events = (Backward(), Backward(inputs=("2.weight", "0.bias")), Backward(inputs=("4.weight",)), Backward())
    check(Plan("MLP", (SGD,), events))


@pytest.mark.must
@with_both
def test_two_losses(check: Check, assignment: Assignment) -> None:
    """Two losses with a backward each are two steps, although both graphs were there before the first."""
    forwards = (Forward(skip=("left",)), Forward(skip=("right",)))
    check(Plan("Branches", (assignment,), (*forwards, BackwardThrough(0), BackwardThrough(1), Backward())))


@pytest.mark.must
@with_both
def test_create_graph(check: Check, assignment: Assignment) -> None:
    """`backward(create_graph=True)` steps as any other backward does."""
    check(Plan("MLP", (assignment,), (Backward(create_graph=True),) * 3))


@pytest.mark.must
@around
@with_hooks
def test_clipped_by_hook(check: Check, by: str, when: str) -> None:
    """What a user's hook makes of a gradient is what is stepped: clipping a parameter at a time works.

    That is how gradients are clipped where no moment exists at which all of them are there.
    """
    clip = ClipGradients(by)
    before, first = ((clip,), ()) if when == "before" else ((), (clip,))
    check(Plan("MLP", (SGD,), (*first, *(Backward(),) * 3), before=before))


@pytest.mark.must
@around
def test_dropped_by_hook(check: Check, when: str) -> None:
    """A parameter whose gradient a user's post-accumulate-grad hook has set to None is not stepped."""
    drop = DropGradients(("2.weight", "4.bias"))
    before, first = ((drop,), ()) if when == "before" else ((), (drop,))
    check(Plan("MLP", (SGD,), (*first, *(Backward(),) * 3), before=before))


@pytest.mark.must
@around
@with_hooks
def test_seen_by_hook(implementation: Implementation, device: str, by: str, when: str) -> None:
    """No user's hook is dropped: registered before attachment or after it, it runs once a backward, on the gradient.

    The gradient is the whole one, of all uses of the parameter.
    """
    model = LayerUsedTwice().to(device)
    ordinary_model = copy.deepcopy(model)
    optimizer_class, options = bind(implementation, PLAIN_SGD)
    ordinary = implementation.standard_optimizer(optimizer_class, ordinary_model.parameters(), dict(options))
    expected = _watch(ordinary_model, by)
    if when == "before":
        seen = _watch(model, by)
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    if when == "after":
        seen = _watch(model, by)
    for step in range(1, 4):
        features = torch.full((4, 5), 0.5 * step, device=device)
        implementation.backward(model(features).square().sum(), model)
        ordinary_model(features).square().sum().backward()
        ordinary.step()
        ordinary.zero_grad()
        for name in expected:
            calls = len(seen[name])
            assert calls == step, f"the hook on {name}, registered {when} attachment, ran {calls} times in {step} steps"
            grad = seen[name][-1]
            assert grad is not None, f"the hook on {name}, registered {when} attachment, finds no gradient"
            assert close(expected[name][-1], grad, implementation.declared.rounding.size), (
                f"the hook on {name}, registered {when} attachment, sees another gradient in step {step}: "
                f"{describe_difference(expected[name][-1], grad)}"
            )


@pytest.mark.must
@pytest.mark.parametrize("grad_mode", [True, False], ids=["grad", "no_grad"])
def test_modes_and_random_state(implementation: Implementation, device: str, grad_mode: bool) -> None:
    """Attaching and backward leave the grad mode and the random state as they were, and ask for no grad mode.

    The other global settings of torch stay as they were too, such as the default dtype and device, the deterministic
    mode and the number of threads; and so do the random states of Python and NumPy.
    """
    optimizer_class, options = bind(implementation, ADAM)
    settings = torch_settings()
    python_state, numpy_state = random.getstate(), repr(np.random.get_state())  # noqa: NPY002 (the one all share)
    model = MLP().to(device)
    loss = model(torch.ones(2, 4, device=device)).sum()
    before = [param.detach().clone() for param in model.parameters()]
    random_state = torch.get_rng_state()
    with torch.set_grad_enabled(grad_mode):
        implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])
        assert torch.is_grad_enabled() is grad_mode, "attaching leaves another grad mode behind"
        implementation.backward(loss, model)
        assert torch.is_grad_enabled() is grad_mode, "backward leaves another grad mode behind"
    assert torch.equal(torch.get_rng_state(), random_state), "attaching or backward draws random numbers"
    assert random.getstate() == python_state, "attaching or backward draws random numbers of Python"
    assert repr(np.random.get_state()) == numpy_state, "attaching or backward draws random numbers of NumPy"  # noqa: NPY002
    changed = [name for name, value in torch_settings().items() if value != settings[name]]
    assert not changed, f"attaching or backward changes {', '.join(changed)}"
    for value, (name, param) in zip(before, model.named_parameters(), strict=True):
        assert not torch.equal(value, param), f"{name} is not stepped, with grad mode {grad_mode}"


def _watch(model: nn.Module, by: str) -> dict[str, list[Any]]:
    """Record what hooks on the parameters of `model` see, by name."""
    seen: dict[str, list[Any]] = {name: [] for name, _ in model.named_parameters()}

    def watch(name: str, given: Tensor) -> None:
        grad = given if by == "register_hook" else given.grad
        seen[name].append(None if grad is None else grad.detach().clone())

    for name, param in model.named_parameters():
        getattr(param, by)(functools.partial(watch, name))
    return seen
