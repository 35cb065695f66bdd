"""Writes the events of `plan.events.graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan.events import (
    AutocastBackward,
    BackwardThrough,
    Compile,
    ComputeGradients,
    Forward,
    FunctionalBackward,
    PenalizedBackward,
)
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(Forward)
def _(event: Forward, script: Script) -> None:
    script.draw_batch()
    script.keep_loss(script.loss(event.skip))


@write.register(BackwardThrough)
def _(event: BackwardThrough, script: Script) -> None:
    script.add(*script.loop.backward(script.kept_loss(event.forward), "retain_graph=True" * event.retain_graph))


@write.register(ComputeGradients)
def _(event: ComputeGradients, script: Script) -> None:
    script.draw_batch()
    if event.by == "torch.autograd.grad":
        script.add(f"torch.autograd.grad({script.loss()}, list(model.parameters()))")
    else:
        functional = script.loss(forward="torch.func.functional_call(model, given, batch)")
        script.add(f"torch.func.grad(lambda given: {functional})(dict(model.named_parameters()))")


@write.register(FunctionalBackward)
def _(event: FunctionalBackward, script: Script) -> None:
    script.draw_batch()
    script.add("params = dict(model.named_parameters())")
    for name in event.replaced:
        script.add(f"params[{name!r}] = params[{name!r}].detach().clone().requires_grad_()")
    script.add(*script.loop.backward(script.loss(forward="torch.func.functional_call(model, params, batch)")))


@write.register(PenalizedBackward)
def _(event: PenalizedBackward, script: Script) -> None:
    script.draw_batch()
    penalized = "batch.requires_grad_()" if event.of == "inputs" else "list(model.parameters())"
    script.add(f"penalized = {penalized}", f"loss = {script.loss()}")
    script.add("grads = torch.autograd.grad(loss, penalized, create_graph=True)")
    script.add(*script.loop.backward("(loss + torch.stack([grad.square().sum() for grad in grads]).sum())"))


@write.register(AutocastBackward)
def _(event: AutocastBackward, script: Script) -> None:
    script.draw_batch()
    with script.block(f"with torch.autocast(batch.device.type, torch.{event.dtype}):"):
        script.add(f"loss = {script.loss()}")
    script.add(*script.loop.backward("loss"))


@write.register(Compile)
def _(event: Compile, script: Script) -> None:
    script.add("torch._dynamo.reset()", f"model.compile(backend={event.backend!r})")
