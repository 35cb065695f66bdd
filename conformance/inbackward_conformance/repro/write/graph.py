"""Writes the events of `plan.events.graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inbackward_conformance.plan import events
from inbackward_conformance.repro.write.dispatch import write

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script


@write.register(events.Forward)
def _(event: events.Forward, script: Script) -> None:
    script.draw_batch()
    script.keep_loss(script.loss(event.skip))


@write.register(events.BackwardThrough)
def _(event: events.BackwardThrough, script: Script) -> None:
    script.add(*script.loop.backward(script.kept_loss(event.forward), "retain_graph=True" * event.retain_graph))


@write.register(events.ComputeGradients)
def _(event: events.ComputeGradients, script: Script) -> None:
    script.draw_batch()
    if event.by == "torch.autograd.grad":
        script.add(f"torch.autograd.grad({script.loss()}, list(model.parameters()))")
    else:
        functional = script.loss(forward="torch.func.functional_call(model, given, batch)")
        script.add(f"torch.func.grad(lambda given: {functional})(dict(model.named_parameters()))")


@write.register(events.FunctionalBackward)
def _(event: events.FunctionalBackward, script: Script) -> None:
    script.draw_batch()
    script.add("params = dict(model.named_parameters())")
    for name in event.replaced:
        script.add(f"params[{name!r}] = params[{name!r}].detach().clone().requires_grad_()")
    script.add(*script.loop.backward(script.loss(forward="torch.func.functional_call(model, params, batch)")))


@write.register(events.PenalizedBackward)
def _(event: events.PenalizedBackward, script: Script) -> None:
    script.draw_batch()
    penalized = "batch.requires_grad_()" if event.of == "inputs" else "list(model.parameters())"
    script.add(f"penalized = {penalized}", f"loss = {script.loss()}")
    script.add("grads = torch.autograd.grad(loss, penalized, create_graph=True)")
    script.add(*script.loop.backward("(loss + torch.stack([grad.square().sum() for grad in grads]).sum())"))


@write.register(events.AutocastBackward)
def _(event: events.AutocastBackward, script: Script) -> None:
    script.draw_batch()
    with script.block(f"with torch.autocast(batch.device.type, torch.{event.dtype}):"):
        script.add(f"loss = {script.loss()}")
    script.add(*script.loop.backward("loss"))


@write.register(events.Compile)
def _(event: events.Compile, script: Script) -> None:
    script.add("torch._dynamo.reset()", f"model.compile(backend={event.backend!r})")
