"""What an attachment lives with, and what it survives: dropped, copied, cast, frozen and rebuilt models."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter

import pytest
import torch
from torch import nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.raising import must_not_raise
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import (
    Attach,
    Backward,
    Cast,
    Detach,
    Event,
    Freeze,
    LoadWeights,
    ReplaceByCopy,
    ReplaceParameter,
    SetData,
    StepAnother,
    SwapParameters,
    Thaw,
)
from inbackward_conformance.plan.need import NOT_COMPARED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.storages import Storages, gc_new_objects_only
from inbackward_conformance.values import tensors_in

ROUNDS = 100
THREE_STEPS = (Backward(),) * 3
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
TRAINED = Assignment("AdamW", {"lr": 0.01}, need=NOT_COMPARED)

with_both = optimizers("assignment", [SGD, ADAMW])


def _attach(implementation: Implementation, model: nn.Module, *, hook: bool = True) -> None:
    optimizer_class, options = bind(implementation, TRAINED)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, hook)])


def _train(implementation: Implementation, model: nn.Module, steps: int) -> None:
    device = next(model.parameters()).device
    for _ in range(steps):
        implementation.backward(model(torch.ones(2, 4, device=device)).square().sum(), model)


def _states(listed: list[torch.optim.Optimizer]) -> list[torch.Tensor]:
    return [tensor for optimizer in listed for state in optimizer.state.values() for tensor in tensors_in(state)]


@pytest.mark.must
@pytest.mark.parametrize("hook", [True, False], ids=["hooked", "unhooked"])
@pytest.mark.parametrize("steps", [0, 2], ids=["untrained", "trained"])
def test_dropped_model(implementation: Implementation, device: str, steps: int, hook: bool) -> None:
    """When a model is dropped, its parameters, their optimizers and states can be collected."""
    with gc_new_objects_only():
        model = MLP().to(device)
        _attach(implementation, model, hook=hook)
        _attach(implementation, model, hook=hook)
        _train(implementation, model, steps)
        params, states = Storages(), Storages()
        params.see(model.parameters())
        states.see(_states(implementation.optimizers(model)))
        references = [weakref.ref(optimizer) for optimizer in implementation.optimizers(model)]
        del model
        gc.collect()
    alive = {
        "parameters": params.live(),
        "optimizers": sum(reference() is not None for reference in references),
        "tensors of optimizer states": states.live(),
    }
    left = ", ".join(f"{count} {what}" for what, count in alive.items() if count)
    assert not left, f"still alive after the model was dropped: {left}"


@pytest.mark.must
def test_rounds(implementation: Implementation, device: str) -> None:
    """A hundred rounds of building a model, attaching, training and dropping it leave no object more.

    Counted are the objects that the garbage collector knows: all that can hold another one.
    """

    def one_round() -> None:
        model = nn.Linear(4, 2, device=device)
        _attach(implementation, model)
        _train(implementation, model, 1)

    for _ in range(3):
        one_round()
    gc.collect()
    with gc_new_objects_only():
        for _ in range(ROUNDS):
            one_round()
        gc.collect()
        kept = Counter(map(type, gc.get_objects()))
    telling = [(kind, count) for kind, count in kept.most_common() if count >= ROUNDS]
    telling.sort(key=lambda item: not issubclass(item[0], torch.Tensor | torch.optim.Optimizer))
    left = ", ".join(f"{count} {kind.__name__}" for kind, count in telling[:4])
    assert not left, f"{ROUNDS} rounds of attaching to a model of two parameters and dropping it leave {left}"


@pytest.mark.must
@with_both
def test_copy_is_plain(check: Check, assignment: Assignment) -> None:
    """A deepcopy is a plain model: it belongs to no optimizer, keeps its gradients and is not trained."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, ReplaceByCopy(), *THREE_STEPS)))


@pytest.mark.must
@with_both
def test_copy_is_attached(check: Check, assignment: Assignment) -> None:
    """A deepcopy can be attached like any model, and its optimizers begin anew."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, ReplaceByCopy(), Attach(), *THREE_STEPS)))


@pytest.mark.must
def test_copy_is_independent(implementation: Implementation, device: str) -> None:
    """Training the original leaves its deepcopy alone, and backward over the copy leaves the original alone."""
    model = MLP().to(device)
    _attach(implementation, model)
    _train(implementation, model, 2)
    with must_not_raise("deepcopy(model)"):
        duplicate = copy.deepcopy(model)
    assert implementation.optimizers(duplicate) == [], "something is attached to the copy"
    values = [param.detach().clone() for param in model.parameters()]
    gradients = [param.grad for param in model.parameters()]
    with must_not_raise("backward over the copy"):
        duplicate(torch.ones(2, 4, device=device)).sum().backward()
    for (name, param), value, gradient in zip(model.named_parameters(), values, gradients, strict=True):
        assert torch.equal(param, value), f"{name} of the original is stepped by backward over its copy"
        assert param.grad is gradient, f"{name} of the original has a gradient from backward over its copy"
        assert gradient is None, f"{name} of the original keeps its gradient after backward"
    _train(implementation, model, 1)
    for (name, param), value in zip(duplicate.named_parameters(), values, strict=True):
        assert torch.equal(param, value), f"{name} of the copy is changed by training the original"
        assert param.grad is not None, f"{name} of the copy loses its gradient by training the original"
    for (name, param), value in zip(model.named_parameters(), values, strict=True):
        assert not torch.equal(param, value), f"{name} of the original is no longer trained after the copy was made"


@pytest.mark.must
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@with_both
def test_cast_before_training(check: Check, assignment: Assignment, dtype: str) -> None:
    """A model that is cast between attachment and its first backward, by `double()` or `to(dtype)`, is trained."""
    check(Plan("MLP", (assignment,), (Cast(dtype), *THREE_STEPS)))


@pytest.mark.must
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@with_both
def test_cast_in_training(check: Check, assignment: Assignment, dtype: str) -> None:
    """A model that is cast in mid-training goes on training with the states that it has.

    Where the standard loop cannot step with states of the old dtype (AdamW), backward raises.
    """
    check(Plan("MLP", (assignment,), (*THREE_STEPS, Cast(dtype), *THREE_STEPS)), standard_may_raise=True)


@pytest.mark.must
@pytest.mark.parametrize("by", ["data", "set_"])
@with_both
def test_new_data(check: Check, assignment: Assignment, by: str) -> None:
    """A parameter whose data is replaced, by `param.data = …` or `param.set_(…)`, goes on training with its state."""
    events = (Backward(), SetData("0.weight", by), SetData("4.bias", by), Backward(), SetData("0.weight", by))
    check(Plan("MLP", (assignment,), (*events, *THREE_STEPS)))


@pytest.mark.must
@with_both
def test_frozen_and_thawed(check: Check, assignment: Assignment) -> None:
    """A parameter that is frozen for a while rests, with its state, and then goes on training."""
    names = ("0.weight", "2.bias")
    check(Plan("MLP", (assignment,), (*THREE_STEPS, Freeze(names), *THREE_STEPS, Thaw(names), *THREE_STEPS)))


@pytest.mark.must
@with_both
def test_loaded_weights(check: Check, assignment: Assignment) -> None:
    """`load_state_dict` in mid-training writes into the parameters, which go on training with their states."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, LoadWeights(), *THREE_STEPS)))


@pytest.mark.must
@with_both
def test_assigned_weights(check: Check, assignment: Assignment) -> None:
    """`load_state_dict(assign=True)` makes new parameters: they belong to no optimizer and keep their gradients."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, LoadWeights(assign=True), *THREE_STEPS)))


@pytest.mark.must
@with_both
def test_replaced_parameter(check: Check, assignment: Assignment) -> None:
    """A new Parameter that takes an old one's place belongs to no optimizer; the others go on training."""
    events = (*THREE_STEPS, ReplaceParameter("0.weight"), ReplaceParameter("4.bias"), *THREE_STEPS)
    check(Plan("MLP", (assignment,), events))


@pytest.mark.must
@with_both
def test_replaced_layer(check: Check, assignment: Assignment) -> None:
    """A deepcopy of a layer that takes its place belongs to no optimizer; the other layers go on training."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, ReplaceByCopy("2"), *THREE_STEPS)))


@pytest.mark.must
@with_both
def test_swapped_parameters(check: Check, assignment: Assignment) -> None:
    """Parameters that change places go on training, each with its own state: it is the object that counts."""
    check(Plan("TwoLayers", (assignment,), (*THREE_STEPS, SwapParameters("0.weight", "1.weight"), *THREE_STEPS)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize(
    "conversion", [Cast("float64", swap=True), LoadWeights(swap=True)], ids=["cast", "loaded-weights"]
)
@with_both
def test_swapped_tensors(check: Check, assignment: Assignment, conversion: Event) -> None:
    """After a conversion that swaps the tensors under the Parameter objects, these go on training.

    `torch.__future__.set_swap_module_params_on_conversion(True)` has `Module.to` and `load_state_dict` do so. Hooks
    on the tensors are lost then. A refusal comes before any parameter was converted.
    """
    plan = Plan("TwoLayers", (assignment,), (*THREE_STEPS, conversion, *THREE_STEPS))
    check(plan, standard_may_raise=isinstance(conversion, Cast))  # AdamW cannot step with states of the old dtype


@pytest.mark.must
@pytest.mark.needs("detach")
@with_both
def test_detached(check: Check, assignment: Assignment) -> None:
    """A detached model is an ordinary one: it keeps its gradients, and another optimizer trains it."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, Detach(), *(Backward(), StepAnother()) * 2)))


@pytest.mark.must
@pytest.mark.needs("detach")
@with_both
def test_attached_again(check: Check, assignment: Assignment) -> None:
    """A detached model can be attached again; its optimizers begin anew."""
    check(Plan("MLP", (assignment,), (*THREE_STEPS, Detach(), Backward(), Attach(), *THREE_STEPS)))


@pytest.mark.must
@pytest.mark.needs("detach")
def test_detached_optimizers(implementation: Implementation, device: str) -> None:
    """After detaching nothing is listed, and nothing keeps the optimizers."""
    with gc_new_objects_only():
        model = MLP().to(device)
        _attach(implementation, model)
        _train(implementation, model, 2)
        references = [weakref.ref(optimizer) for optimizer in implementation.optimizers(model)]
        implementation.detach(model)
        gc.collect()
    assert implementation.optimizers(model) == [], "something is listed after detaching"
    alive = sum(reference() is not None for reference in references)
    assert not alive, f"{alive} of {len(references)} optimizers are still alive after detaching"
