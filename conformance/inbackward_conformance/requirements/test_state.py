"""Checkpoints: what is saved, what it goes into, and that nothing else is in the file."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.catalogue.optimizer_configurations import (
    MODEL_FOR,
    closure_free_optimizer_names,
    model_for,
)
from inbackward_conformance.checking.check import Check
from inbackward_conformance.checking.raising import must_not_raise
from inbackward_conformance.outcome import BrokenPromise, Finding, NotOffered, Outcome
from inbackward_conformance.plan import ALL, Assignment, Plan, TensorOption
from inbackward_conformance.plan.events import Backward, Load, Save, SetOption
from inbackward_conformance.plan.need import NOT_COMPARED
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.raised_error import text_of
from inbackward_conformance.training.compare import difference
from inbackward_conformance.training.trace import take_snapshot

THREE_STEPS = (Backward(),) * 3
STOP_AND_GO_ON = (*THREE_STEPS, Save(), Load(), *THREE_STEPS)
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})
ADAM = Assignment("Adam", {"lr": 0.01})
NOT_COMPARED_ADAM = replace(ADAM, need=NOT_COMPARED)
QUICK_ADAM = Assignment("Adam", {"lr": 0.03, "betas": (0.8, 0.9)})


def _with_state(name: str) -> Assignment:
    """Return an assignment of a class with options that give it a state."""
    options = {"lr": 0.01, "momentum": 0.9} if name == "SGD" else {"lr": 0.01}
    return Assignment(name, options, MODEL_FOR.get(name, ("MLP", ALL))[1])


EVERY_CLASS = list(map(_with_state, closure_free_optimizer_names()))
ON_MLP = [assignment for assignment in EVERY_CLASS if assignment.optimizer not in MODEL_FOR]


def _trained(device: str, attach: Callable[[nn.Module], Any], backward: Callable[[nn.Module], None]) -> nn.Module:
    """Return a model of fixed values after an attachment and three backwards; the same for whoever attaches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MLP().to(device)
    attach(model)
    for _ in range(3):
        backward(model)
    return model


def _loss(model: nn.Module) -> torch.Tensor:
    param = next(model.parameters())
    features = torch.linspace(-1, 1, 12, device=param.device).reshape(3, 4)
    loss: torch.Tensor = model(features).square().sum()
    return loss


@pytest.mark.must
@optimizers("assignment", EVERY_CLASS)
def test_resume(check: Check, assignment: Assignment) -> None:
    """Saved in mid-training, loaded into a model that is built and attached anew, training goes on as if never stopped.

    What is saved and loaded are the states of the listed optimizers.
    """
    plan = Plan(model_for(assignment.optimizer), (assignment,), STOP_AND_GO_ON)
    check(plan, never_stopped=replace(plan, events=THREE_STEPS * 2))


@pytest.mark.must
@optimizers(
    "assignments",
    [(SGD, ADAM), (ADAM, QUICK_ADAM), (ADAM, QUICK_ADAM, SGD)],
    ids=["SGD-Adam", "Adam-Adam", "three"],
)
def test_resume_several_optimizers(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """With several optimizers on a parameter the states of all of them survive."""
    check(Plan("MLP", assignments, STOP_AND_GO_ON))


@pytest.mark.must
def test_resume_shared_parameter(check: Check) -> None:
    """The state of a shared parameter survives."""
    check(Plan("TiedTransformer", (ADAM,), STOP_AND_GO_ON))


@pytest.mark.must
@pytest.mark.parametrize("lr", [0.01, TensorOption(0.01)], ids=["number", "tensor"])
def test_resume_options(check: Check, lr: Any) -> None:
    """Options that were changed in training survive, and can be changed again: the learning rate goes on as ever."""
    changed = (SetOption("lr", 0.002), SetOption("weight_decay", 0.3))
    events = (*THREE_STEPS, *changed, Save(), Load(), *THREE_STEPS, SetOption("lr", 0.05), *THREE_STEPS)
    check(Plan("MLP", (Assignment("Adam", {"lr": lr}),), events))


@pytest.mark.must
@optimizers("assignment", [SGD, ADAM])
def test_roll_back(check: Check, assignment: Assignment) -> None:
    """An earlier checkpoint that is loaded into the model in training takes it back to where it was."""
    check(Plan("MLP", (assignment,), (Backward(), Save(), Backward(), Backward(), Load(rebuild=False), *THREE_STEPS)))


@pytest.mark.must
@optimizers("assignment", ON_MLP)
def test_from_standard(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """A checkpoint of the standard optimizer loads into the attached ones, and training goes on as the standard loop.

    It is loaded by `torch.distributed.checkpoint.state_dict.set_optimizer_state_dict` with the listed optimizers, or,
    where that raises, by the implementation's own `load_state_dict`.
    """
    standard, optimizer = _standard(implementation, device, assignment)
    attached = MLP().to(device)
    _attach(implementation, attached, assignment)
    _copy_values(standard, attached)
    try:
        checkpoint = _through_a_file(get_optimizer_state_dict(standard, optimizer))
        set_optimizer_state_dict(attached, implementation.optimizers(attached), optim_state_dict=checkpoint)
    except Exception as error:  # noqa: BLE001 (whatever the listed optimizers make torch raise)
        _or_by_its_own(implementation, implementation.offers("load_state_dict"), error)
        implementation.load_state_dict(attached, _through_a_file(optimizer.state_dict()))
    _go_on_alike(implementation, standard, optimizer, attached)


@pytest.mark.must
@optimizers("assignment", ON_MLP)
def test_to_standard(implementation: Implementation, device: str, assignment: Assignment) -> None:
    """A checkpoint of the attached optimizers loads into the standard one, which goes on as they do.

    It is made by `torch.distributed.checkpoint.state_dict.get_optimizer_state_dict` from the listed optimizers, or,
    where that raises, by the implementation's own `state_dict`.
    """
    attached = _attached(implementation, device, assignment)
    standard = MLP().to(device)
    optimizer_class, options = bind(implementation, assignment)
    optimizer = implementation.standard_optimizer(optimizer_class, standard.parameters(), options)
    _copy_values(attached, standard)
    try:
        checkpoint = _through_a_file(get_optimizer_state_dict(attached, implementation.optimizers(attached)))
        set_optimizer_state_dict(standard, optimizer, optim_state_dict=checkpoint)
    except Exception as error:  # noqa: BLE001 (whatever the listed optimizers make torch raise)
        _or_by_its_own(implementation, implementation.offers("state_dict"), error)
        optimizer.load_state_dict(_through_a_file(implementation.state_dict(attached)))
    _go_on_alike(implementation, standard, optimizer, attached)


@pytest.mark.must
def test_saved_parameter(implementation: Implementation, device: str) -> None:
    """A saved parameter is a plain one's file: no larger, of the same classes, and it loads with `weights_only`."""
    attached, plain = _attached(implementation, device, NOT_COMPARED_ADAM), _plain(device)
    for (name, param), expected in zip(attached.named_parameters(), plain.parameters(), strict=True):
        file = _holds_nothing_more(param, expected, f"parameter {name!r}")
        with must_not_raise(f"loading the saved parameter {name!r} with weights_only=True"):
            loaded = torch.load(file, weights_only=True)
        assert torch.equal(loaded, param), f"parameter {name!r} loads with other values"


@pytest.mark.must
def test_saved_state_dict(implementation: Implementation, device: str) -> None:
    """A saved `module.state_dict()` is a plain model's: the same keys, no larger, and it loads with `weights_only`."""
    attached, plain = _attached(implementation, device, NOT_COMPARED_ADAM), _plain(device)
    saved = attached.state_dict()
    assert list(saved) == list(plain.state_dict()), f"state_dict() has the keys {list(saved)}"
    file = _holds_nothing_more(saved, plain.state_dict(), "module.state_dict()")
    with must_not_raise("loading the saved module.state_dict() with weights_only=True"):
        loaded = torch.load(file, weights_only=True)
    for name, value in loaded.items():
        assert torch.equal(value, saved[name]), f"{name!r} of module.state_dict() loads with other values"


@pytest.mark.must
def test_saved_states(check: Check, implementation: Implementation, device: str) -> None:
    """The saved states of the attached optimizers load with `weights_only`, if those of the standard optimizer do."""
    saved = implementation.state_dict(_attached(implementation, device, NOT_COMPARED_ADAM))
    if refused := _refused_with_weights_only(saved):
        _, optimizer = _standard(implementation, device, NOT_COMPARED_ADAM)
        what = f"with weights_only=True torch.load does not load the saved states: {refused}"
        assert _refused_with_weights_only(optimizer.state_dict()), what
        check.findings.append(Finding(Outcome.CONFORMS, f"as for its standard optimizer: {what}"))


@pytest.mark.must
def test_saved_module(implementation: Implementation, device: str) -> None:
    """A module saved as a whole is a plain model's file: no larger, of the same classes.

    What is loaded is a plain model, to which nothing is attached. (`weights_only` takes a whole module of any kind only
    after its classes were allowed.)
    """
    attached = _attached(implementation, device, NOT_COMPARED_ADAM)
    file = _holds_nothing_more(attached, _plain(device), "the module")
    with must_not_raise("loading the saved module"):
        loaded = torch.load(file, weights_only=False)
    assert implementation.optimizers(loaded) == [], "something is attached to the module that was loaded"
    with must_not_raise("backward over the module that was loaded"):
        _loss(loaded).backward()
    for (name, param), original in zip(loaded.named_parameters(), attached.parameters(), strict=True):
        assert torch.equal(param, original), f"{name} of the module that was loaded is stepped inside backward"
        assert param.grad is not None, f"{name} of the module that was loaded loses its gradient"


def _attach(implementation: Implementation, model: nn.Module, assignment: Assignment) -> None:
    optimizer_class, options = bind(implementation, assignment)
    implementation.attach(model, [(optimizer_class, model.parameters(), options, True)])


def _attached(implementation: Implementation, device: str, assignment: Assignment) -> nn.Module:
    """Return a model after three steps inside backward."""
    return _trained(
        device,
        lambda model: _attach(implementation, model, assignment),
        lambda model: implementation.backward(_loss(model), model),
    )


def _plain(device: str) -> nn.Module:
    """Return the same model without attachment, untrained."""
    return _trained(device, lambda _: None, lambda _: None)


def _standard(
    implementation: Implementation, device: str, assignment: Assignment
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model after three steps of the standard loop, and its optimizer."""
    made: list[torch.optim.Optimizer] = []

    def attach(model: nn.Module) -> None:
        optimizer_class, options = bind(implementation, assignment)
        made.append(implementation.standard_optimizer(optimizer_class, model.parameters(), options))

    model = _trained(device, attach, lambda model: _standard_step(model, made[0]))
    return model, made[0]


def _standard_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    _loss(model).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _copy_values(source: nn.Module, target: nn.Module) -> None:
    with torch.no_grad():
        for param, value in zip(target.parameters(), source.parameters(), strict=True):
            param.copy_(value)


def _go_on_alike(
    implementation: Implementation, standard: nn.Module, optimizer: torch.optim.Optimizer, attached: nn.Module
) -> None:
    """Compare both as they are now, and after each of three more steps."""
    for step in range(4):
        event = f"step {step} with the loaded checkpoint" if step else "loading the checkpoint"
        expected = take_snapshot(event, standard, [optimizer], implementation.state_of)
        actual = take_snapshot(event, attached, implementation.optimizers(attached), implementation.state_of)
        if found := difference(expected, actual, implementation.declared.rounding.size):
            raise BrokenPromise(found)
        _standard_step(standard, optimizer)
        implementation.backward(_loss(attached), attached)


def _through_a_file(checkpoint: Any) -> Any:
    """Return a checkpoint as another process reads it: no tensor of it is one of ours."""
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # what `weights_only` refuses is for `saved_states` to tell


def _refused_with_weights_only(state: Any) -> str:
    """Return why a saved state does not load with `weights_only`; empty if it does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        return f"it refuses {refused[1]}" if refused else str(error).splitlines()[0]
    return ""


def _or_by_its_own(implementation: Implementation, offered: bool, error: Exception) -> None:
    what = f"torch.distributed.checkpoint over the listed optimizers raises {text_of(error)}"
    if implementation.declared.own_optimizers and not offered:
        raise NotOffered(what)
    assert offered, what


def _holds_nothing_more(attached: Any, plain: Any, what: str) -> io.BytesIO:
    """Save both, hold the one against the other, and return the file of the first."""
    file, expected = io.BytesIO(), io.BytesIO()
    with must_not_raise(f"saving {what}"):
        torch.save(attached, file)
    torch.save(plain, expected)
    more = _names_in(file) - _names_in(expected)
    assert not more, f"the saved file of {what} holds {', '.join(sorted(more))}"
    size, plain_size = len(file.getvalue()), len(expected.getvalue())
    assert size <= plain_size, f"the saved file of {what} has {size} bytes, and {plain_size} without attachment"
    file.seek(0)
    return file


def _names_in(file: io.BytesIO) -> set[str]:
    """Return the classes and functions that a saved file refers to."""
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    return {str(value).replace(" ", ".") for opcode, value, _ in pickletools.genops(pickled) if opcode.name == "GLOBAL"}
