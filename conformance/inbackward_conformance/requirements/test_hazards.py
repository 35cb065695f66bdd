"""Graphs, gradients and parameters that an optimizer in backward trips over.

In each of these the standard loop steps after all of backward has run, and an optimizer in backward steps while a part
of it is yet to run. A parameter that is stepped too early, with a part of its gradient, or twice, trains something
else, and nothing tells. Equal, or refused. Where the running graph alone can show the hazard, a late refusal passes: an
error within that same backward that names the remedy and says that parameters were already stepped. Autograd's own
error about an in-place modification is none: it blames an operation that the user has not written, and says nothing
of the steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.accident import is_accidental
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import Finding, Outcome
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import (
    AutocastBackward,
    Backward,
    BackwardThrough,
    Compile,
    Forward,
    FunctionalBackward,
    PenalizedBackward,
    ScaledBackward,
    TrainOrdinarily,
)
from inbackward_conformance.plan.need import EXACTLY, NO_STATE
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.raised_error import mentions_steps, text_of
from inbackward_conformance.tensors import close, describe_difference

THREE_STEPS = (Backward(),) * 3
SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9})
ADAM = Assignment("Adam", {"lr": 0.01})
MOMENTUM = Assignment("SGD", {"lr": 0.1, "momentum": 0.9})
STUMBLING = "inbackward_conformance.catalogue.custom_optimizers:Stumbling"
STUMBLES = Assignment(STUMBLING, {"lr": 0.1, "momentum": 0.0, "shape": (6, 6)}, need=EXACTLY)
NEVER_STUMBLES = Assignment(STUMBLING, {"lr": 0.1, "momentum": 0.0, "shape": ()}, need=NO_STATE)

with_both = optimizers("assignment", [SGD, ADAM])


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Leave nothing compiled behind."""
    yield
    torch._dynamo.reset()  # noqa: SLF001 (a module that torch documents, whatever its name)


@pytest.mark.must
@pytest.mark.may_refuse("late")
@with_both
def test_retained_graph(check: Check, assignment: Assignment) -> None:
    """A second backward through a retained graph is a second step."""
    again = BackwardThrough(retain_graph=True)
    check(Plan("OneLayer", (assignment,), (Forward(), again, again, BackwardThrough())))


@pytest.mark.must
@pytest.mark.may_refuse("late")
@with_both
def test_retained_graph_made_stale(check: Check, assignment: Assignment) -> None:
    """Where the step has changed what a retained graph needs, a second backward raises, as in the standard loop.

    An implementation that steps behind autograd's back computes gradients from a mixture of old and new values.
    """
    events = (Forward(), BackwardThrough(retain_graph=True), BackwardThrough())
    check(Plan("MLP", (assignment,), events), standard_may_raise=True)


@pytest.mark.should
@pytest.mark.may_refuse
def test_stale_graph_explained(implementation: Implementation, device: str) -> None:
    """Where the step has changed what a retained graph needs, the error of a second backward tells of the step.

    Autograd's own error is about an in-place operation, and the user has written none. A SHOULD: both raise.
    """
    model = MLP().to(device)
    optimizer_class, options = bind(implementation, ADAM)
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    output = model(torch.linspace(-1.0, 1.0, 8, device=device).reshape(2, 4)).square()
    implementation.backward(output[0].mean(), model, retain_graph=True)
    raised = _error_of(lambda: implementation.backward(output[1].mean(), model))
    assert raised, "a second backward over a graph that a step has changed raises nothing"
    assert mentions_steps(raised), (
        f"the error of a second backward over a graph says nothing of steps: {text_of(raised)}"
    )


@pytest.mark.must
@pytest.mark.may_refuse("late")
@pytest.mark.parametrize("model", ["DetachedUse", "UseOfData", "UseInFunction"])
def test_detached_use(check: Check, model: str) -> None:
    """A parameter that the graph uses as a constant too (`detach()`, `.data`) keeps its value until that use is done.

    Its gradient is complete before: stepped at once, the other use sees the new value.
    """
    check(Plan(model, (SGD,), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("late")
@pytest.mark.parametrize("model", ["Checkpointed", "ReentrantCheckpointed"])
@with_both
def test_checkpoint(check: Check, model: str, assignment: Assignment) -> None:
    """Activation checkpointing, reentrant and not, trains as in the standard loop."""
    check(Plan(model, (assignment,), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("late")
@pytest.mark.parametrize("use", ["Twice", "AndNot"])
@pytest.mark.parametrize("model", ["Checkpointed", "ReentrantCheckpointed"])
def test_checkpoint_of_shared_parameter(check: Check, model: str, use: str) -> None:
    """A parameter that is used twice, checkpointed once or twice, is stepped once, with its whole gradient.

    Reentrant checkpointing runs a backward of its own in each block: the gradient comes in parts, and a later part is
    computed anew from the parameter.
    """
    check(Plan(f"{model}{use}", (SGD,), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse("late")
@pytest.mark.parametrize("reentrant", [False, True], ids=["nonreentrant", "reentrant"])
@pytest.mark.parametrize("model", ["Chunks", "Overlapping", "SameData", "Transposed", "RealPart", "BufferOfParameter"])
def test_checkpoint_of_shared_storage(check: Check, model: str, reentrant: bool) -> None:
    """Checkpointed layers whose parameters are views of one memory train as in the standard loop.

    A layer is computed anew in backward, from the memory as it is then, and has saved nothing that autograd could hold
    against a step that came too early.
    """
    check(Plan(model, (SGD.parameter_by_parameter(),), THREE_STEPS, arguments=(reentrant,)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("model", ["CheckpointedDropout", "ReentrantCheckpointedDropout"])
@with_both
def test_checkpoint_of_dropout(check: Check, model: str, assignment: Assignment) -> None:
    """Recomputation draws the random numbers that the forward drew."""
    check(Plan(model, (assignment,), THREE_STEPS))


@pytest.mark.should
@pytest.mark.may_refuse("late")
@pytest.mark.parametrize("model", ["CheckpointedConstant", "ReentrantCheckpointedConstant"])
def test_checkpoint_of_detached_use(check: Check, model: str) -> None:
    """A parameter that a checkpointed block uses as a constant keeps its value until the block is computed again.

    A SHOULD: until then nothing in the graph refers to the parameter, so a hook on it cannot tell. An implementation
    that walks the graph before backward, or steps after it where it finds a checkpoint, can.
    """
    check(Plan(model, (SGD,), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(check: Check, backend: str, when: str) -> None:
    """A compiled model, compiled and called before attachment or compiled after it, trains as in the standard loop.

    Backends that change the arithmetic are left out: bitwise the same is asked for.
    """
    compiled = (Compile(backend), TrainOrdinarily()) if when == "before" else (Compile(backend),)
    before, first = (compiled, ()) if when == "before" else ((), compiled)
    check(Plan("LayerUsedTwice", (SGD,), (*first, *THREE_STEPS), before=before))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_autograd(check: Check) -> None:
    """Under compiled autograd, which captures backward as a graph, a model trains as in the standard loop.

    With SGD: where a step is captured too, classes that count steps do so in tensors, and their bits are others.
    """
    assignment = replace(SGD, need=EXACTLY)
    check(Plan("LayerUsedTwice", (assignment,), (Backward(), Backward(inside="compiled_autograd"), Backward())))


@pytest.mark.must
@pytest.mark.parametrize("mode", ["inference_mode", "no_grad"])
@with_both
def test_grad_mode(check: Check, mode: str, assignment: Assignment) -> None:
    """Backward inside `torch.inference_mode()` or `torch.no_grad()`, as in evaluation code, trains as anywhere else.

    So does the next one outside: what a step keeps for it has to be no inference tensor.
    """
    inside = Backward(inside=mode)
    check(Plan("MLP", (assignment,), (inside, Backward(), inside, Backward())))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("model", ["MLP", "LayerUsedTwice"])
@with_both
def test_autocast(check: Check, model: str, assignment: Assignment) -> None:
    """A forward under autocast in bfloat16 trains the float32 parameters as in the standard loop."""
    check(Plan(model, (assignment,), (AutocastBackward("bfloat16"),) * 3))


@pytest.mark.must
@pytest.mark.may_refuse("late")
@with_both
def test_grad_scaler(check: Check, assignment: Assignment) -> None:
    """A loss that a `GradScaler` has scaled trains as in the standard loop, or its backward is refused.

    Gradients are still scaled inside backward. An error of `scaler.step` is none of the implementation: it comes when
    parameters were stepped with scaled gradients.
    """
    check(Plan("MLP", (assignment,), (Backward(), *(ScaledBackward(),) * 3)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("of", ["inputs", "parameters"])
@with_both
def test_double_backward(check: Check, of: str, assignment: Assignment) -> None:
    """A gradient penalty, a backward through a backward, trains as in the standard loop."""
    check(Plan("MLP", (assignment,), (PenalizedBackward(of),) * 3))


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_step_that_raises(check: Check) -> None:
    """The error of a step that raises inside backward reaches the caller of backward, as it is.

    The outcome says what had been stepped before.
    """
    plan = Plan("MLP", (Assignment(STUMBLING, {"shape": (6, 6)}, need=EXACTLY),), THREE_STEPS)
    check(plan, standard_may_raise=True)
    found = check.findings[-1]
    reached = found.outcome is Outcome.REFUSES or "OutOfRange: the second step" in found.detail
    assert reached, f"the error of the step does not reach the caller: {found.detail}"


@pytest.mark.must
@pytest.mark.parametrize(("origin", "assignment"), [("step", STUMBLES), ("hook", NEVER_STUMBLES)], ids=["step", "hook"])
def test_after_an_error(implementation: Implementation, device: str, origin: str, assignment: Assignment) -> None:
    """After an error inside backward and `zero_grad()`, the next backward steps every parameter once, as ever."""
    model = MLP().to(device)
    features = torch.linspace(-1.0, 1.0, 8, device=device).reshape(2, 4)
    optimizer_class, options = bind(implementation, assignment)
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    implementation.backward(model(features).square().mean(), model)
    handle = model.get_parameter("2.weight").register_hook(_raise) if origin == "hook" else None
    try:
        implementation.backward(model(features).square().mean(), model)
    except RuntimeError:
        pass
    else:
        raise AssertionError(f"an error of a {origin} inside backward does not reach the caller")
    if handle:
        handle.remove()
    model.zero_grad()
    ordinary_model = _twin(model)
    implementation.backward(model(features).square().mean(), model)
    ordinary = implementation.standard_optimizer(optimizer_class, ordinary_model.parameters(), dict(options))
    ordinary_model(features).square().mean().backward()
    ordinary.step()
    when = f"in the backward after one in which a {origin} raised"
    _expect_equal(ordinary_model, model, when, implementation.declared.rounding.size)


@pytest.mark.must
@pytest.mark.may_refuse
def test_two_threads(check: Check, implementation: Implementation, device: str) -> None:
    """Two threads that train a model each, in backward at the same time, give what one after the other gives."""
    choices = [bind(implementation, assignment) for assignment in (MOMENTUM, ADAM)]
    trained = [MLP().to(device) for _ in choices]
    starts, ordinary_models = ([_twin(model) for model in trained] for _ in range(2))
    for (optimizer_class, options), model, ordinary_model in zip(choices, trained, ordinary_models, strict=True):
        implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
        ordinary = implementation.standard_optimizer(optimizer_class, ordinary_model.parameters(), dict(options))
        _train(ordinary_model, Tensor.backward, ordinary)
    meeting = threading.Barrier(len(trained), timeout=2)

    raised: list[Exception] = []

    def train(model: nn.Sequential) -> None:
        try:
            _train(model, lambda loss: implementation.backward(loss, model), meeting=meeting)
        except Exception as error:  # noqa: BLE001 (whatever an implementation raises is an observation)
            meeting.abort()
            raised.append(error)

    # Daemons, so that two that wait for each other for ever keep neither the case nor the process.
    threads = [threading.Thread(target=train, args=(model,), daemon=True) for model in trained]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        what = f"two threads in backward at the same time: {text_of(raised[0])}"
        assert not is_accidental(raised[0]), f"an accident, not a refusal: {what}"
        for start, model in zip(starts, trained, strict=True):
            _expect_equal(start, model, f"although refused: {what}", 0.0)
        check.findings.append(Finding(Outcome.REFUSES, what))
        return
    for ordinary_model, model in zip(ordinary_models, trained, strict=True):
        when = "where another thread trains another model"
        _expect_equal(ordinary_model, model, when, implementation.declared.rounding.size)


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("model", ["FunctionLinear", "RecomputingFunction", "GradientByHand"])
@with_both
def test_custom_function(check: Check, model: str, assignment: Assignment) -> None:
    """Custom autograd Functions train as in the standard loop, one that sets its weight's `.grad` itself included."""
    check(Plan(model, (assignment,), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("replaced", [(), ("0.weight", "2.bias")], ids=["own", "replaced"])
def test_functional_call(check: Check, replaced: tuple[str, ...]) -> None:
    """`torch.func.functional_call` trains the model's own parameters; those that it replaces stay as they are."""
    check(Plan("MLP", (ADAM,), (Backward(), *(FunctionalBackward(replaced),) * 3)))


@pytest.mark.must
@pytest.mark.may_refuse
@pytest.mark.parametrize("model", ["TaggedParameter", "WrappedParameter"])
@with_both
def test_tensor_subclass(check: Check, model: str, assignment: Assignment) -> None:
    """Parameters of a tensor subclass, one without a behaviour of its own or one that dispatches, train as others."""
    check(Plan(model, (assignment,), THREE_STEPS))


@pytest.mark.must
@pytest.mark.may_refuse
def test_nested_tensor(check: Check) -> None:
    """A nested tensor as a parameter trains as in the standard loop, by SGD, which is what torch can step it with."""
    check(Plan("NestedParameter", (SGD,), THREE_STEPS))


def _error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (whatever an implementation raises is an observation)
        return error
    return None


def _raise(_: Tensor) -> None:
    raise RuntimeError("a user's hook raises")


def _twin(model: nn.Module) -> MLP:
    """Return an ordinary model of the same values."""
    twin = MLP().to(next(model.parameters()).device)
    twin.load_state_dict(model.state_dict())
    return twin


def _expect_equal(expected: nn.Module, model: nn.Module, when: str, tolerance: float) -> None:
    for (name, param), value in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert close(value, param, tolerance), (
            f"parameter {name!r} differs from the standard loop {when}: {describe_difference(value, param)}"
        )


def _train(
    model: nn.Sequential,
    backward: Callable[[Tensor], Any],
    optimizer: torch.optim.Optimizer | None = None,
    meeting: threading.Barrier | None = None,
) -> None:
    """Train for some steps; in the middle of each backward, wait for the others at the `meeting`."""

    def meet(_: Tensor) -> None:
        if meeting:
            with suppress(threading.BrokenBarrierError):  # an implementation may let one backward wait for the other
                meeting.wait()

    device = next(model.parameters()).device
    for step in range(1, 6):
        hidden = torch.tanh(model[0](torch.linspace(-1.0, 1.0, 8, device=device).reshape(2, 4) / step))
        if device.type == "cpu":  # other devices have one thread for all backwards
            hidden.register_hook(meet)
        backward(model[4](torch.tanh(model[2](hidden))).square().mean())
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()
