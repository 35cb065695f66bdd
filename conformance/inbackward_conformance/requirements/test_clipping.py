"""Clipping by the norm of all gradients, and gradient scaling: what has to be known before the first step.

An adapter offers both as `backward_clipped(loss, module, max_norm=None, scaler=None)`, which returns the total norm
before clipping. The standard loop unscales the gradients, calls `torch.nn.utils.clip_grad_norm_` with the parameters of
all optimizers, and steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.binding import bind
from inbackward_conformance.catalogue.models import MLP
from inbackward_conformance.catalogue.scaler import build_scaler
from inbackward_conformance.checking.check import Check
from inbackward_conformance.outcome import NotOffered
from inbackward_conformance.plan import Assignment, Plan
from inbackward_conformance.plan.events import Backward, ClippedBackward, Freeze, MicroBatch
from inbackward_conformance.plan.need import ANOTHER_CLASS
from inbackward_conformance.plugin.optimizer_cases import optimizers
from inbackward_conformance.tensors import close, describe_difference

SGD = Assignment("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1})
ADAMW = Assignment("AdamW", {"lr": 0.01, "weight_decay": 0.1})
OTHER_ADAMW = replace(ADAMW, need=ANOTHER_CLASS)
INFINITE = float("inf")

with_both = optimizers("assignment", [SGD, ADAMW])


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@pytest.mark.parametrize("max_norm", [0.01, 1e6, 0.0, INFINITE], ids=["above", "below", "zero", "infinite"])
@with_both
def test_norm(check: Check, assignment: Assignment, max_norm: float) -> None:
    """Gradients whose total norm is above the largest are scaled down to it, before any parameter is stepped."""
    check(Plan("MLP", (assignment,), (Backward(), *(ClippedBackward(max_norm),) * 3, Backward())))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@pytest.mark.parametrize("scale", [INFINITE, float("nan")], ids=["inf", "nan"])
def test_non_finite(check: Check, scale: float) -> None:
    """Without a scaler, a total norm that is not finite clips as in the standard loop: no step is skipped."""
    check(Plan("MLP", (SGD,), (ClippedBackward(), ClippedBackward(scale=scale), ClippedBackward())))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@optimizers("assignments", [(SGD, OTHER_ADAMW)], ids=["two"])
def test_several_optimizers(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """The total norm is that of the parameters of all optimizers, each of them once."""
    first = replace(assignments[0], params=("0.weight", "0.bias", "2.weight"))
    second = replace(assignments[1], params=("2.weight", "4.weight", "4.bias"))
    check(Plan("MLP", (first, second), (ClippedBackward(0.01),) * 3))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@with_both
def test_frozen_and_unused(check: Check, assignment: Assignment) -> None:
    """Parameters without a gradient are neither part of the norm nor stepped."""
    events = (
        ClippedBackward(0.01),
        ClippedBackward(0.01, skip=("right",)),
        Freeze(("left.weight",)),
        ClippedBackward(0.01),
    )
    check(Plan("Branches", (assignment,), events))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@with_both
def test_after_micro_batches(check: Check, assignment: Assignment) -> None:
    """The norm is that of the sum of all micro-batches, of parameters too that the last one does not reach."""
    events = (MicroBatch(), MicroBatch(skip=("left",)), ClippedBackward(0.01, skip=("right",)), ClippedBackward(0.01))
    check(Plan("Branches", (assignment,), events))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@pytest.mark.parametrize("max_norm", [None, 0.01], ids=["unclipped", "clipped"])
@with_both
def test_scaler(check: Check, assignment: Assignment, max_norm: float | None) -> None:
    """With a `GradScaler`, gradients are unscaled before they are clipped and stepped, and the scale grows."""
    check(Plan("MLP", (assignment,), (ClippedBackward(max_norm, scaler=True),) * 4))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@pytest.mark.parametrize("max_norm", [None, 0.01], ids=["unclipped", "clipped"])
@with_both
def test_overflow(check: Check, assignment: Assignment, max_norm: float | None) -> None:
    """Where one scaled gradient is not finite, the step is skipped: nothing but the scale changes."""
    scaled = ClippedBackward(max_norm, scaler=True)
    check(Plan("MLP", (assignment,), (scaled, replace(scaled, scale=INFINITE), scaled, scaled)))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
@optimizers("assignments", [(SGD, OTHER_ADAMW)], ids=["two"])
def test_overflow_of_one_optimizer(check: Check, assignments: tuple[Assignment, ...]) -> None:
    """With several optimizers, only those that hold a gradient which is not finite skip their step."""
    first = replace(assignments[0], params=("trunk.weight", "trunk.bias"))
    second = replace(assignments[1], params=("left.weight", "right.weight"))
    scaled = ClippedBackward(None, scaler=True)
    overflows = tuple(replace(scaled, overflow_in=name) for name in ("left.weight", "trunk.bias"))
    check(Plan("Branches", (first, second), (scaled, overflows[0], scaled, overflows[1], scaled)))


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
def test_returned_norm(implementation: Implementation, device: str) -> None:
    """The total norm before clipping is returned, as by `clip_grad_norm_`; with a scaler, of unscaled gradients."""
    for scaler in (None, build_scaler(torch.device(device))):
        model, ordinary_model = MLP().to(device), MLP().to(device)
        ordinary_model.load_state_dict(model.state_dict())
        _attach(implementation, model)
        returned = implementation.backward_clipped(_loss(model), model, max_norm=0.01, scaler=scaler)
        _loss(ordinary_model).backward()
        expected = torch.nn.utils.clip_grad_norm_(ordinary_model.parameters(), 0.01)
        what = "with a scaler" if scaler else "without a scaler"
        assert isinstance(returned, Tensor), f"the total norm is a tensor, and {returned!r} was returned {what}"
        assert close(expected, returned, implementation.declared.rounding.size), (
            f"another total norm is returned {what}: {describe_difference(expected, returned)}"
        )


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
def test_returned_scale(implementation: Implementation, device: str) -> None:
    """The scaler's own state is that of the standard loop, after an overflow and after steps without."""
    model = MLP().to(device)
    _attach(implementation, model)
    scaler, ordinary_scaler = build_scaler(torch.device(device)), build_scaler(torch.device(device))
    ordinary_model = MLP().to(device)
    optimizer = torch.optim.SGD(ordinary_model.parameters())
    for number, factor in enumerate((1.0, INFINITE, 1.0, 1.0)):
        implementation.backward_clipped(_loss(model) * factor, model, max_norm=None, scaler=scaler)
        ordinary_scaler.scale(_loss(ordinary_model) * factor).backward()
        ordinary_scaler.step(optimizer)
        ordinary_scaler.update()
        optimizer.zero_grad()
        expected, found = ordinary_scaler.state_dict(), scaler.state_dict()
        assert found == expected, f"after step {number + 1} the scaler's state is {found}, expected {expected}"


@pytest.mark.must
@pytest.mark.needs("backward_clipped")
def test_error_if_nonfinite(implementation: Implementation, device: str) -> None:
    """With `error_if_nonfinite=True`, a total norm that is not finite raises an error, and nothing is stepped."""
    model = MLP().to(device)
    _attach(implementation, model)
    before = [param.detach().clone() for param in model.parameters()]
    options: dict[str, Any] = {"max_norm": 1.0, "error_if_nonfinite": True}
    try:
        implementation.backward_clipped(_loss(model) * INFINITE, model, **options)
    except NotOffered:
        raise
    except RuntimeError:
        pass
    else:
        raise AssertionError("an infinite total norm raises nothing")
    for (name, param), value in zip(model.named_parameters(), before, strict=True):
        assert torch.equal(param, value), f"{name} was stepped although the total norm is not finite"


def _attach(implementation: Implementation, model: nn.Module) -> None:
    optimizer_class, options = bind(implementation, SGD)
    implementation.attach(model, [(optimizer_class, model.parameters(), dict(options), True)])


def _loss(model: nn.Module) -> Tensor:
    features = torch.linspace(-1, 1, 12, device=next(model.parameters()).device).reshape(3, 4)
    loss: Tensor = model(features).square().sum()
    return loss
